"""Runs programs under a stated environment, and lets none of them outlive this process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# All that children see of the user's environment; the rest could change what they make.
PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME", "YOWASP_CACHE_DIR",
)  # fmt: skip
STATED = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}  # whatever the user's language is
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def clean_environment() -> dict[str, str]:
    """Returns the environment of a child: PASSED of this process's, and STATED."""
    return {name: os.environ[name] for name in PASSED if name in os.environ} | STATED


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def child(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program in a process group of its own; the block's end ends the whole group.

    options : of subprocess.Popen. Yields the process.
    """
    process: subprocess.Popen[Any] = subprocess.Popen(
        words, process_group=0, preexec_fn=end_with_parent, stdin=subprocess.DEVNULL, **options
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end_group(process.pid)
            # Not Popen.wait: a signal's exception may have left its lock held, for good.
            with suppress(ChildProcessError):
                _, status = os.waitpid(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)


def run(words: Sequence[str], **options: Any) -> int:
    """Run a program to its end, as `child` does. Returns its exit code."""
    with child(words, **options) as process:
        return process.wait()


def _end_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _leaders() -> Iterator[int]:
    """Yields the children of this process that `child` started: each leads a group of its own."""
    for task in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            with suppress(ProcessLookupError):
                if os.getpgid(pid) == pid:
                    yield pid


def end_at_signals() -> None:
    """Have this worker process end, with its children, at SIGINT, SIGTERM and its parent's end."""

    def end(number: int, frame: Any) -> None:
        for leader in _leaders():
            _end_group(leader)
        os._exit(128 + number)

    end_with_parent()
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
