"""Processes that train: killed, interrupted, several of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from bnnhw import train
from bnnhw.nn import checkpoint

PATIENCE = 300  # seconds


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(train.main, [str(word) for word in words])


def _heed_interrupts():
    """Also where the tests run in a shell's background, which has them ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start():
    """Starts the command in a process group of its own, which ends with the test."""
    started = []

    def start(*words, **environment) -> subprocess.Popen:
        command = [sys.executable, "-m", "bnnhw.train", *map(str, words)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=dict(os.environ, OMP_NUM_THREADS="1", **environment),
            preexec_fn=_heed_interrupts,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path, process):
    """Until a file is there; it is whole then."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not come")


def test_a_killed_training_goes_on_to_the_same_model(tmp_path, start):
    words = ["--dataset", "digits", "--depth", 8, "--widths", "4,4,4", "--epochs", 6, "--seed", 2]
    out, state = tmp_path / "killed.pt", tmp_path / "killed.pt.state"
    process = start(*words, "--out", out)
    wait_for(state, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.load(out).metrics["epochs"] < 6
    assert invoke(*words, "--out", out, "--resume").exit_code == 0
    assert invoke(*words, "--out", tmp_path / "whole.pt").exit_code == 0
    killed, whole = checkpoint.load(out), checkpoint.load(tmp_path / "whole.pt")
    assert killed.metrics["epochs"] == whole.metrics["epochs"] == 6
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, killed.state[name]), name


def test_an_interrupt_is_one_line_and_keeps_whole_epochs(tmp_path, start):
    out = tmp_path / "m.pt"
    words = ("--dataset", "digits", "--depth", 8, "--widths", "4,4,4", "--epochs", 99)
    process = start(*words, "--processes", 2, "--out", out)
    wait_for(tmp_path / "m.pt.state", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; whole epochs are kept, go on with --resume"
    assert "Traceback" not in errors
    assert checkpoint.load(out).metrics["epochs"] >= 1


def test_processes_that_torchrun_starts_train_one_model(tmp_path, start):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = dict(WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    words = ["--dataset", "digits", "--depth", 8, "--widths", "8,8,16", "--epochs", 4]
    words += ["--batch", 32, "--out", tmp_path / "m.pt"]
    team = [start(*words, RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(2)]
    first, second = (process.communicate(timeout=PATIENCE)[1] for process in team)
    assert [process.returncode for process in team] == [0, 0], first + second
    assert "epoch 4" in first and "epoch" not in second
    assert checkpoint.load(tmp_path / "m.pt").metrics["validation"] > 30
