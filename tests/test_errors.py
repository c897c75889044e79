"""docs/errors.md: every line of its table of bad inputs, and how commands end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bnnhw.__main__ import COMMANDS, main
from bnnhw.boards import BOARDS
from bnnhw.cli import Terminated
from bnnhw.errors import UserError
from bnnhw.flow import stages, tools
from bnnhw.flow.implement import Placed
from bnnhw.flow.prove import Mismatch, Proof
from bnnhw.gateware.wire import Identity, boot_image
from bnnhw.jobs.locks import alone, alone_in
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint, untrained
from bnnhw.training.options import read_config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"


def rows() -> Iterator[tuple[str, str]]:
    """The command and the line of each row of the table."""
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `bnnhw "):
            command, told = line.strip("| ").split("` | `")
            yield command.removeprefix("`bnnhw "), told.rstrip("`")


def test_the_table_has_every_command_and_no_line_twice():
    table = [*rows()]
    assert len(table) == len({*table}) >= 80
    assert {command.split()[0] for command, _ in table} == {*COMMANDS}


class Code:
    def __reduce__(self):
        return print, ("never",)


def put_build(folder):
    """What a build of digits leaves, with another bitstream than it made."""
    folder.mkdir()
    identity = Identity(height=8, width=8, channels=1, classes=10, clock_hz=24_000_000, baud=10**6)
    weights = boot_image(identity, b"weights!", bytes(64), [0] * 11).content
    (folder / "flash.bin").write_bytes(weights)
    (folder / "top.bin").write_bytes(b"another")
    files = {"flash.bin": weights, "top.bin": b"the one"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    flash = dict(file="flash.bin", offset=BOARDS["icebreaker"].flash_offset)
    content = dict(board="icebreaker", flash=flash, files=digests, model=dict(classes=[]))
    (folder / "report.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the table's commands name."""
    folder = tmp_path_factory.mktemp("place")
    small = NetworkSpec(depth=8, widths=(4, 4, 4), input=(9, 9, 1))
    checkpoint.save(folder / "odd.pt", untrained(small))
    checkpoint.save(folder / "good.pt", untrained(small))
    checkpoint.save(folder / "large.pt", untrained(NetworkSpec(depth=8, input=(256, 256, 1))))
    checkpoint.save(folder / "wide.pt", untrained(NetworkSpec(depth=8, widths=(64, 128, 1024))))
    whole = (folder / "odd.pt").read_bytes()
    (folder / "torn.pt").write_bytes(whole[: len(whole) - 100])
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("a text")
    content = torch.load(folder / "odd.pt", weights_only=True)
    state = {name: value.clone() for name, value in content["state"].items()}
    first = next(name for name, value in state.items() if value.is_floating_point())
    changes = dict(
        code=dict(metrics=Code()), nan=dict(state=state | {first: state[first] * float("nan")}),
        tensor=dict(metrics=dict(accuracy=dict(integer=torch.tensor(98.0)))),
        nanmetric=dict(metrics=dict(top1=float("nan"))), key=dict(metrics={3: "x"}),
        version=dict(version=99), missing=dict(state={k: state[k] for k in [*state][1:]}),
        teacher=dict(format="bnnhw-teacher"),
    )  # fmt: skip
    for name, change in changes.items():
        torch.save(content | change, folder / f"{name}.pt")
    texts = dict(
        bad="[recipe\nepochs = 1", unknown="[recipe]\nspeed = 9", tables="[network]\ndepth = 8",
        repair='[repair]\nstem = "8-bit"',
    )  # fmt: skip
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    nodes = [("Relu", "first", ""), ("Strange", "strange", "com.example"), ("Relu", "last", "")]
    made = [
        onnx.helper.make_node(kind, [f"x{at}"], [f"x{at + 1}"], name, domain=domain)
        for at, (kind, name, domain) in enumerate(nodes)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 8, 8])
        for name in ("x0", "x3")
    ]
    graph = onnx.helper.make_graph(made, "graph", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph), folder / "net.onnx")
    (folder / "torn.onnx").write_bytes((folder / "net.onnx").read_bytes()[:-30])
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "file").write_text("mine")
    for name in ("folder", "locked", "taken/report.json", "there/cifar-10-batches-py"):
        (folder / name).mkdir(parents=True)
    (folder / "good").mkdir()
    for name in ("report.json", "top.bin", "top.v", "flash.bin"):
        (folder / "good" / name).write_text(f"the good {name}")
    put_build(folder / "desk")
    Image.new("L", (3, 3)).save(folder / "grey.png")
    with alone_in(folder / "locked"), alone(folder / "locked.pt.lock", "locked.pt"):
        yield folder


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(("command", "told"), [*rows()], ids=lambda text: text[:60])
def test_bad_input_is_one_line_and_loses_nothing(place, monkeypatch, one_thread, command, told):
    monkeypatch.chdir(place)
    before = content_of(place)
    name, *words = shlex.split(command.replace(";", r"\;").replace("*", r"\*"))
    result = CliRunner().invoke(main, [name, *words])
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2, result.exception
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and told in lines[0], result.stderr
    assert "Traceback" not in result.output and "Usage:" not in result.output
    assert content_of(place) == before


# How commands end, and what they leave then.

BUILD = ("resnet8-digits", "--board", "icebreaker", "--out", "out")


def invoke(name, *words):
    return CliRunner().invoke(import_module(f"bnnhw.{name}").main, [str(word) for word in words])


@pytest.fixture
def fakes(monkeypatch, tmp_path, one_thread):
    """A build whose stages after the plan only leave files; `ends` is what the proof does."""

    class Fakes:
        def ends(self):
            return None

    def write_design(plan, board, folder, *, clock_hz, name, step):
        for file in ("engine.v", "top.il", "top.v", "flash.bin"):
            (folder / file).write_text(f"{file} of {clock_hz}")
        return folder

    def synthesise(design):
        (design / "top.json").write_text('{"modules": {"top": {"cells": {}}}}')
        return cells

    def prove(design, images, *, progress):
        return Proof(len(images), 30, result.ends(), 900, 9000, {0: 9000}, "verilator 5")

    def pack(design, placed):
        (design / "top.bin").write_text("bits")

    result = Fakes()
    placed = Placed(1, 30.0, 24.0, dict(lc=4500, ebr=27, spram=4, dsp=8), ())
    cells = dict(lut=4000, ff=2000, ebr=27, spram=4, dsp=8)
    for name, stand_in in dict(
        write_design=write_design, prove=prove, synthesise=synthesise, pack=pack,
        place_and_route=lambda design, *, seed, tell: placed,
    ).items():  # fmt: skip
        monkeypatch.setattr(stages, name, stand_in)
    monkeypatch.setattr(tools, "is_cold", lambda tool: False)
    monkeypatch.chdir(tmp_path)
    return result


def test_a_good_build_says_what_its_files_are(fakes, tmp_path):
    result = invoke("build", *BUILD)
    assert result.exit_code == 0, result.output
    content = json.loads(Path("out/report.json").read_text())
    assert {*content["files"]} == {"top.bin", "top.v", "flash.bin"}
    for name, digest in content["files"].items():
        assert hashlib.sha256(Path("out", name).read_bytes()).hexdigest() == digest


def test_signs_of_the_screen_in_names_are_printed_as_they_are(fakes, tmp_path):
    model = tmp_path / "my [red]:smile: model.pt"
    model.write_bytes(checkpoint.bundled("resnet8-digits").read_bytes())
    result = invoke("build", model, *BUILD[1:-1], "a [b] [/x] out")
    assert result.exit_code == 0, result.exception
    assert "my [red]:smile: model on icebreaker" in result.output
    assert "\na [b] [/x] out/report.json\n" in result.output
    assert "iceprog 'a [b] [/x] out'/top.bin" in result.output


def ends_by(error):
    def end():
        raise error

    return end


ENDINGS = [
    (lambda: Mismatch(0, "stem.bits", (1, 2, 3), 1, 0), 1, None),
    (ends_by(UserError("proof: stuck\nfor long")), 2, "error: proof: stuck for long"),
    (ends_by(KeyboardInterrupt()), 130, "interrupted"),
    (ends_by(Terminated()), 143, "interrupted"),
    (ends_by(OSError(errno.ENOSPC, "No space left on device", "x")), 2,
     "error: x: No space left on device; make room, or choose a place you may write to"),
    (ends_by(OSError(errno.EFBIG, "File too large")), 2,
     "error: File too large; make room, or choose a place you may write to"),
]  # fmt: skip


@pytest.mark.parametrize(("ends", "code", "line"), ENDINGS)
def test_the_table_of_exit_codes(fakes, ends, code, line):
    assert f"\n| {code} |" in PAGE.read_text()
    invoke("build", *BUILD)
    before = content_of(Path("out"))
    fakes.ends = ends
    result = invoke("build", *BUILD)
    assert result.exit_code == code and "Traceback" not in result.output
    if line:  # the build that was good is as it was
        assert result.stderr == f"{line}\n" and content_of(Path("out")) == before
    else:
        report = json.loads(Path("out/report.json").read_text())
        assert "stem.bits[1, 2, 3]" in report["verification"]["mismatch"]
        assert not Path("out/top.bin").exists()


def test_a_full_disk_at_the_end_leaves_the_good_build(fakes, monkeypatch):
    invoke("build", *BUILD)
    before = content_of(Path("out"))

    def full(source, target):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    result = invoke("build", *BUILD, "--clock", 25)
    assert result.exit_code == 2
    assert result.stderr == (
        "error: out: cannot be written (No space left on device); choose another --out\n"
    )
    now = content_of(Path("out"))
    assert {name: now[name] for name in before if "work" not in name} == {
        name: text for name, text in before.items() if "work" not in name
    }
    assert not [name for name in now if name.endswith(".part")]


def test_an_error_that_is_no_ones_fault_is_not_hidden(fakes):
    fakes.ends = ends_by(OSError(errno.ESRCH, "a defect"))
    assert isinstance(invoke("build", *BUILD).exception, OSError)


def test_a_recipe_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes("\ufeff[recipe]\nepochs = 3\n".encode())
    assert read_config(path) == {"recipe": {"epochs": 3}}


def test_capital_x_in_a_shape(tmp_path):
    words = ("--dataset", "digits", "--depth", 8, "--epochs", 0, "--out", tmp_path / "m.pt")
    assert invoke("train", *words, "--input", "32X32X3").exit_code == 0
    assert checkpoint.load(tmp_path / "m.pt").spec.input == (32, 32, 3)


def command(*words, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed, **settings,
    )  # fmt: skip


def heed():
    """Also where the tests run in a shell's background, which has interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_while_python_imports(number, code):
    process = command("bnnhw.build", "--help", cwd=ROOT)
    status = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in status.read_text() and process.poll() is None:
        time.sleep(0.005)  # importing torch takes a second from here on
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (code, b"", b"interrupted\n")


def test_names_in_any_bytes_without_a_locale(tmp_path):
    out = os.fsencode(tmp_path) + b"/\xc3\xa4 \xff out"
    words = ["bnnhw.build", *BUILD[:-1], out, "--stop-after", "plan"]
    variables = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONPATH=str(ROOT))
    process = command(*words, env=variables, cwd=ROOT)
    told, err = process.communicate()
    assert process.returncode == 0, err
    assert told.endswith(out + b"/report.json\n")
    assert json.loads(Path(os.fsdecode(out), "report.json").read_text())["board"] == "icebreaker"


def test_standard_output_that_is_full():
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "bnnhw.train", "--list-repairs"], stdout=full,
            stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
    assert told.returncode == 2
    assert told.stderr.startswith(b"error: No space left on device; make room")
    assert told.stderr.count(b"\n") == 1
