"""A build that is stopped or killed while a tool runs leaves no tool, no lock and no trust."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnnhw.jobs.locks import alone_in
from tests.jobs.test_processes import ended

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds


def running_in(folder):
    """Processes whose working folder is this one."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(link)) == folder:
                found.append(int(link.parent.name))
        except OSError:
            pass
    return found


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, True), (signal.SIGKILL, -9, False)],
)
def test_a_build_that_ends_takes_its_tools_along(tmp_path, number, code, told):
    build = subprocess.Popen(
        [sys.executable, "-m", "bnnhw.build", "resnet8-digits", "--board", "icebreaker",
         "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + PATIENCE
    while not (tools := running_in(tmp_path / "work")) and time.monotonic() < until:
        assert build.poll() is None, build.stderr.read()
        time.sleep(0.01)
    assert (tmp_path / ".lock").exists() and tools
    build.send_signal(number)
    _, err = build.communicate()
    assert build.returncode == code and err == ("interrupted\n" if told else "")
    assert all(ended(tool) for tool in tools)
    assert not (tmp_path / "work" / "engine.kept").exists()
    with alone_in(tmp_path):
        assert not (tmp_path / "report.json").exists()
