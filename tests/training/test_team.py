"""The team of processes: its place, its helpers, and whole batches shared."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from bnnhw.datasets import Images
from bnnhw.errors import UserError
from bnnhw.training import team
from bnnhw.training.batches import Batches
from bnnhw.training.recipe import Recipe
from bnnhw.training.team import Team


def test_torchrun_says_a_process_its_place(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert team.launched() is None
    for name, value in dict(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1").items():
        monkeypatch.setenv(name, value)
    assert team.launched() == Team(5, 8, 1)
    with pytest.raises(UserError, match="--processes 2: torchrun has started the processes"):
        with team.team(2, print):
            pass


def test_each_process_has_a_gpu_where_there_are_enough(monkeypatch):
    assert Team(3, 4, 3).device == torch.device("cpu") or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(Team(n, 4, n).device) for n in range(4)] == ["cuda:0", "cuda:1"] * 2


def test_a_helper_leaves_faults_and_interrupts_to_the_first_process(monkeypatch):
    ignored, calls = [], []
    monkeypatch.setattr(signal, "signal", lambda number, what: ignored.append((number, what)))

    def work(word, *, team):
        calls.append((word, team))
        raise UserError("no data")

    team._help(Team(), "", work, ("word",))
    assert ignored == [(signal.SIGINT, signal.SIG_IGN)] and calls == [("word", Team())]


def test_a_team_shares_each_batch():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    images = Images(pixels, np.arange(100) % 10, 10)
    batches = Batches(images, Recipe(epochs=1, batch=30, crop=1), torch.device("cpu"))
    alone, *shared = (
        [batch.pixels for batch in batches.epoch(torch.Generator().manual_seed(1), place)]
        for place in (Team(), Team(0, 2), Team(1, 2))
    )
    for whole, even, odd in zip(alone, *shared, strict=True):
        assert torch.equal(whole[::2], even) and torch.equal(whole[1::2], odd)
