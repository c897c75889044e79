"""Children: what they see of the environment, and that none of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnnhw.jobs import processes

LEAKS = {
    "COCOTB_TEST_FILTER": "nothing", "COCOTB_TESTCASE": "none", "COCOTB_RANDOM_SEED": "7",
    "GPI_EXTRA": "x", "MAKEFLAGS": "-k", "MAKELEVEL": "3", "PYTHONPATH": "/nowhere",
    "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "x", "VERILATOR_ROOT": "/nowhere", "CXX": "false",
    "CXXFLAGS": "-O0", "CPATH": "/nowhere", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0",
    "YOWASP_MOUNT": "/=/nowhere", "AMARANTH_synth_opts": "-x", "WAVES": "1", "SIM": "icarus",
    "OBJCACHE": "false", "PERL5LIB": "/nowhere", "YOSYS": "false",
}  # fmt: skip


def test_children_see_what_is_stated(monkeypatch):
    for name, value in LEAKS.items():
        monkeypatch.setenv(name, value)
    found = processes.clean_environment()
    assert {*found} <= {*processes.PASSED, *processes.STATED}
    assert found["LC_ALL"] == "C.UTF-8" and found["PYTHONUTF8"] == "1"
    assert found["PATH"] == os.environ["PATH"]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ended(pid):
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


GRANDCHILD = "sleep 60 & echo $!; wait"


def test_a_child_ends_with_its_children():
    with pytest.raises(KeyboardInterrupt):
        with processes.child(["sh", "-c", GRANDCHILD], stdout=subprocess.PIPE) as child:
            grandchild = int(child.stdout.readline())
            assert alive(grandchild)
            raise KeyboardInterrupt
    assert child.returncode == -signal.SIGKILL and ended(grandchild)


def test_run_gives_the_exit_code():
    assert processes.run(["sh", "-c", "exit 7"]) == 7


PARENT = """
import subprocess, sys, time
from bnnhw.jobs import processes
if sys.argv[1] == "worker":
    processes.end_at_signals()
with processes.child(["sh", "-c", "echo $$; sleep 60 & echo $!; wait"]) as child:
    child.wait()
"""


@pytest.mark.parametrize(
    ("kind", "number", "code"),
    [
        ("plain", signal.SIGKILL, -signal.SIGKILL),
        ("worker", signal.SIGTERM, 143),
        ("worker", signal.SIGINT, 130),
    ],
)
def test_children_end_with_their_parent(kind, number, code):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    child, grandchild = (int(parent.stdout.readline()) for _ in range(2))
    parent.send_signal(number)
    assert parent.wait() == code and ended(child)
    if kind == "worker":
        assert ended(grandchild)
    else:
        os.kill(grandchild, signal.SIGKILL)  # the kernel ends only the child itself


def test_a_child_ends_after_a_signal_in_the_midst_of_a_wait():
    """Between taking the lock of Popen.wait and its `try`, where it stays held."""
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(KeyboardInterrupt), processes.child(words) as process:
        process._waitpid_lock.acquire()
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL and not alive(process.pid)
