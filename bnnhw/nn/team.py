"""Data-parallel training: processes of one thread each, gradients averaged in one piece."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Team:
    """This process's place among the processes that train one model together."""

    rank: int = 0
    size: int = 1

    def average(self, tensors: list[Tensor]) -> None:
        """Replace the tensors by their means over all processes, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, model: nn.Module) -> None:
        """Make every process's gradients those of the whole batch."""
        self.average([p.grad for p in model.parameters() if p.grad is not None])

    def average_statistics(self, model: nn.Module) -> None:
        """Make the running statistics of batch norm the same everywhere."""
        with torch.no_grad():
            self.average([b for b in model.buffers() if b.dtype.is_floating_point])

    def agree(self, value: float) -> float:
        """The value of the first process."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)


ALONE = Team()


def _join(team: Team, store: str) -> None:
    torch.set_num_threads(1)  # a second thread makes these small kernels slower
    if team.size > 1:
        dist.init_process_group("gloo", f"file://{store}", PATIENCE, team.size, team.rank)


def _help(team: Team, store: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _join(team, store)
    work(*arguments, team=team)


@contextmanager
def team(size: int, work: Callable[..., Any], *arguments: Any) -> Iterator[Team]:
    """Start size - 1 helpers that call work(*arguments, team=theirs); yields this one's Team.

    The caller must call `work` with it, too. Helpers end with this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        context = multiprocessing.get_context("spawn")
        helpers = [
            context.Process(
                target=_help, args=(Team(rank, size), store, work, arguments), daemon=True
            )
            for rank in range(1, size)
        ]
        for helper in helpers:
            helper.start()
        _join(Team(0, size), store)
        try:
            yield Team(0, size)
            for helper in helpers:
                helper.join(60)
        finally:
            for helper in helpers:
                helper.terminate()
            if size > 1:
                dist.destroy_process_group()
