"""What is kept between runs: whole or not at all, and trusted only if it is unchanged."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnnhw.errors import UserError
from bnnhw.jobs import files
from bnnhw.jobs.files import Kept


def full(*arguments, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "x.kept", "inputs", (tmp_path / "x", tmp_path / "folder"))


def step(folder, log):
    def make():
        log.append("made")
        (folder / "folder").mkdir(exist_ok=True)
        (folder / "folder" / "y").write_text("y" * 1000)
        (folder / "x").write_text("x" * 1000)

    return make


def test_a_step_is_taken_once(kept, tmp_path):
    log = []
    assert kept.make(step(tmp_path, log)) and not kept.make(step(tmp_path, log))
    assert log == ["made"]


def cut(folder):
    with (folder / "x").open("r+") as file:
        file.truncate(300)


def changed(folder):
    (folder / "x").write_text("x" * 999 + "y")


def one_more(folder):
    (folder / "folder" / "z").touch()


def gone(folder):
    (folder / "folder" / "y").unlink()


def no_record(folder):
    (folder / "x.kept").unlink()


def torn_record(folder):
    (folder / "x.kept").write_bytes(b'{"inputs": "\xff')


@pytest.mark.parametrize("fault", [cut, changed, one_more, gone, no_record, torn_record])
def test_what_is_torn_or_changed_is_made_anew(kept, tmp_path, fault):
    log = []
    kept.make(step(tmp_path, log))
    fault(tmp_path)
    assert not kept.stands()
    shutil.rmtree(tmp_path / "folder")
    assert kept.make(step(tmp_path, log)) and len(log) == 2 and kept.stands()


def test_other_inputs_are_another_step(kept, tmp_path):
    kept.make(step(tmp_path, []))
    assert not Kept(kept.record, "others", kept.products).stands()


def test_a_step_that_breaks_off_leaves_nothing_to_trust(kept, tmp_path):
    kept.make(step(tmp_path, []))
    cut(tmp_path)

    def broken_off():
        step(tmp_path, [])()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.make(broken_off)
    assert (tmp_path / "x").stat().st_size == 1000 and not kept.stands()


def test_parts_of_a_digest_do_not_run_together(tmp_path):
    (tmp_path / "b").write_text("b")
    assert files.digest("a", b"b") == files.digest(b"a", tmp_path / "b") != files.digest("ab")


def test_sealed_json(tmp_path):
    path = tmp_path / "a" / "row.json"
    content = dict(numbers=[1, 2.5, (3, 4)], name="mine", nothing=None)
    files.write_sealed(path, content)
    assert files.read_sealed(path) == content | dict(numbers=[1, 2.5, [3, 4]])
    text = path.read_text()
    for torn in (text[:40], text.replace("2.5", "2.6"), "[]", "", "null", '{"sha256": "0"}'):
        path.write_text(torn)
        assert files.read_sealed(path) is None
    path.unlink()
    assert files.read_sealed(path) is None


@pytest.mark.parametrize("method", ["write_text", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, method):
    path = tmp_path / "file"
    files.write_text(path, "old")
    monkeypatch.setattr(*((Path, method) if method == "write_text" else (os, method)), full)
    with pytest.raises(UserError, match=r"file: cannot be written \(No space left on device\)"):
        files.write_text(path, "new")
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "old"


def published(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_published_together(tmp_path, monkeypatch):
    out, made = tmp_path / "out", tmp_path / "made"
    out.mkdir()
    made.write_text("bits")
    old = {"report": "old report", "a": "old a", "b": "old b"}
    for name, text in old.items():
        (out / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(UserError, match="out: cannot be written .No space left"):
            files.publish(out, {"report": "new", "a": made}, "report", ["b"])
        assert published(out) == old
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *w: (moved.append(published(out)), replace(*w)))
    files.publish(out, {"report": "new", "a": made}, "report", ["b"])
    assert published(out) == {"report": "new", "a": "bits"}
    assert all("report" not in there for there in moved), "a report beside files of others"


def test_what_killed_processes_left_is_swept_away(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True).stdout.strip()  # fmt: skip
    mine, theirs = tmp_path / f"a.{os.getpid()}.part", tmp_path / f"a.{ended}.part"
    other = tmp_path / "my.part"
    for path in (mine, theirs, other):
        path.touch()
    files.sweep(tmp_path)
    assert {*tmp_path.iterdir()} == {mine, other}


def test_a_full_disk_is_seen_after_a_tool_that_did_not(tmp_path, monkeypatch):
    files.check_room(tmp_path)
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.check_room(tmp_path)


def test_a_file_as_large_as_files_may_be_was_cut(tmp_path):
    code = f"""
import resource, pathlib
from bnnhw.jobs.files import check_room
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
place = pathlib.Path({str(tmp_path)!r})
(place / "whole").write_bytes(bytes(4999))
check_room(place)
(place / "cut").write_bytes(bytes(5000))
try:
    check_room(place)
except OSError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert told.stdout.endswith("cut: as large as the limit of files' sizes (ulimit -f) allows\n")
