"""What a training tells: JSON lines beside its file, and TensorBoard's."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from bnnhw.errors import UserError
from bnnhw.training.journal import Lines, TensorBoard

EPOCHS = [dict(epoch=n, seconds=n, loss=1 / n, validation=10.0 * n, rate=0.5) for n in (1, 2, 3)]


def test_an_epoch_is_a_line_and_those_run_again_are_dropped(tmp_path):
    path = tmp_path / "m.pt.log.jsonl"
    lines = Lines(path, 0)
    for entry in (EPOCHS[0], dict(done=0.5, seconds=1), EPOCHS[1]):
        lines(entry)
    with path.open("a") as file:
        file.write('{"epoch": 3, "loss"')  # power went
    lines = Lines(path, 1)
    lines(EPOCHS[1])
    lines(EPOCHS[2])
    assert [json.loads(line) for line in path.read_text().splitlines()] == EPOCHS
    Lines(path, 0)
    assert path.read_text() == ""


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be written .*choose another --out"):
        Lines(tmp_path / "none" / "m.pt.log.jsonl", 0)


def test_tensorboard_gets_every_number_of_an_epoch(monkeypatch, tmp_path):
    written = []
    writer = SimpleNamespace(add_scalar=lambda *args: written.append(args), flush=lambda: None)
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda directory: writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    board = TensorBoard(tmp_path)
    board(dict(done=0.1, seconds=3))
    board(EPOCHS[1])
    assert sorted(written) == [
        ("loss", 0.5, 2), ("rate", 0.5, 2), ("seconds", 2, 2), ("validation", 20.0, 2),
    ]  # fmt: skip


def test_without_tensorboard_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="needs the package tensorboard; pip install tensorboard"):
        TensorBoard(tmp_path)
