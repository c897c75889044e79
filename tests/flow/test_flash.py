"""What is checked before a board is written, and the commands that write it."""

import hashlib
import json
import stat

import pytest
from click.testing import CliRunner

from bnnhw.boards import board
from bnnhw.errors import UserError
from bnnhw.flash import main
from bnnhw.flow.desk import read_build
from bnnhw.flow.flash import command, execute, plan_writes
from bnnhw.gateware.wire import Identity, boot_image

IDENTITY = Identity(height=2, width=2, channels=1, classes=2, clock_hz=1, baud=1)
BOOT = boot_image(IDENTITY, b"weights!", bytes(4), [1, 2, 1])
BITSTREAM = b"bitstream" * 100


def make(folder, *, name="icebreaker", **changes):
    """A build's folder; changes : of report.json."""
    folder.mkdir(exist_ok=True)
    chosen = board(name)
    suffix = "bin" if chosen.family == "ice40" else "bit"
    files = {"flash.bin": BOOT.content, f"top.{suffix}": BITSTREAM}
    for file, content in files.items():
        (folder / file).write_bytes(content)
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    report = dict(
        board=name, flash=dict(file="flash.bin", offset=chosen.flash_offset), files=digests
    )
    (folder / "report.json").write_text(json.dumps(report | changes))
    return folder


@pytest.mark.parametrize(
    ("name", "suffix"), [("icebreaker", "bin"), ("ulx3s", "bit"), ("orangecrab_25f", "bit")]
)
def test_weights_go_first(tmp_path, name, suffix):
    writes = plan_writes(read_build(make(tmp_path, name=name)))
    assert [write.file.name for write in writes] == ["flash.bin", f"top.{suffix}"]
    assert [write.offset for write in writes] == [
        board(name).flash_offset,
        0x80000 if name == "orangecrab_25f" else 0,
    ]


def refusal(folder):
    with pytest.raises(UserError) as caught:
        plan_writes(read_build(folder))
    return str(caught.value)


def test_files_that_are_not_the_builds(tmp_path):
    folder = make(tmp_path)
    (folder / "top.bin").write_bytes(BITSTREAM + b"!")
    assert "top.bin: is not the file of report.json" in refusal(folder)
    (folder / "top.bin").unlink()
    assert "top.bin: No such file" in refusal(folder)
    make(folder, files={})
    assert "flash.bin: report.json does not have it" in refusal(folder)


def test_offsets_and_sizes(tmp_path, monkeypatch):
    folder = make(tmp_path, flash=dict(file="flash.bin", offset=0x1000))
    assert "flash offset 0x1000, icebreaker has 0x100000" in refusal(folder)
    folder = make(tmp_path)
    large = bytes(0x100001)
    (folder / "top.bin").write_bytes(large)
    report = json.loads((folder / "report.json").read_text())
    report["files"]["top.bin"] = hashlib.sha256(large).hexdigest()
    (folder / "report.json").write_text(json.dumps(report))
    assert "1048577 bytes, must end before the weights at 0x100000" in refusal(folder)


@pytest.mark.parametrize("missing", ["report.json", "flash.bin"])
def test_a_folder_that_is_no_build(tmp_path, missing):
    folder = make(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"no {missing}; give a build's folder with --build"):
        read_build(folder)


def test_a_short_or_foreign_flash_bin(tmp_path):
    folder = make(tmp_path)
    for content in (b"", b"BNN1" + bytes(200)):
        (folder / "flash.bin").write_bytes(content)
        with pytest.raises(UserError, match="build it anew: bnnhw build"):
            read_build(folder)


def test_dry_run_prints_the_commands_and_runs_none(tmp_path):
    result = CliRunner().invoke(main, ["--build", str(make(tmp_path)), "--dry-run"])
    assert result.exit_code == 0, result.output
    weights, gateware = result.output.splitlines()
    assert weights.startswith("openFPGALoader -b ice40_generic --write-flash --verify --offset 0x1")
    assert weights.endswith("flash.bin") and gateware.endswith("top.bin")


def test_iceprog_has_its_own_words(tmp_path):
    weights, _ = plan_writes(read_build(make(tmp_path)))
    assert command("iceprog", "iceprog", "icebreaker", weights)[:3] == ["iceprog", "-o", "0x100000"]


def test_a_programmer_that_fails_is_one_line(tmp_path):
    program = tmp_path / "iceprog"
    program.write_text('#!/bin/sh\necho init..\necho "Can\'t find iCE FTDI USB device"\nexit 2\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(UserError, match="Can't find iCE FTDI USB device; the board may hold"):
        execute([str(program), "x"])
