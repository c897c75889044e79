"""One process at a time: who waits, who is told, and that no lock outlives its process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bnnhw.errors import UserError
from bnnhw.jobs import locks

HOLD = """
import pathlib, sys, time
from bnnhw.jobs.locks import alone
with alone(pathlib.Path(sys.argv[1]), "--out out"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    yield lock, holder
    holder.kill()
    holder.wait()


def test_the_second_is_told_who_is_first(held):
    lock, holder = held
    with pytest.raises(UserError) as told, locks.alone(lock, "--out out"):
        pass
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    line = rf"--out out: in use by process {holder.pid} since {since}; wait for its end or give"
    assert re.match(line, str(told.value))


def test_a_lock_ends_with_its_process(held):
    lock, holder = held
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.exists()
    with locks.alone(lock, "--out out"):
        assert f'"pid": {os.getpid()}' in lock.read_text()
    assert not lock.exists()


def test_a_lock_is_of_one_thread(tmp_path):
    with locks.alone_in(tmp_path / "new"):
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            with locks.alone_in(tmp_path / "new"):
                pass
    assert not [*(tmp_path / "new").iterdir()]


def test_in_turn(tmp_path):
    lock, told, turns = tmp_path / "lock", [], []

    def second():
        with locks.in_turn(lock, "cache", "", told.append):
            turns.append("second")

    with locks.in_turn(lock, "cache", "", told.append):
        thread = threading.Thread(target=second)
        thread.start()
        while not told:
            time.sleep(0.05)
        turns.append("first")
    thread.join()
    assert turns == ["first", "second"] and not lock.exists()
    assert told[0].startswith(f"cache: waiting for process {os.getpid()} since ") and told[1:] == []


def test_places_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--models .*Not a directory.*; give another directory"):
        with locks.alone_in(tmp_path / "file" / "folder", "--models"):
            pass
    with pytest.raises(UserError, match=r"--out x: cannot be written .No such file"):
        with locks.alone(tmp_path / "none" / "x.lock", "--out x"):
            pass
