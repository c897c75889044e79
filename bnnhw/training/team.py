"""Data-parallel training: processes train one model and average their gradients in one piece.

On a CPU each process has one thread. A second thread makes these small kernels slower.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from bnnhw.errors import UserError
from bnnhw.jobs.locks import alone, beside

PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Team:
    """This process's place among the processes that train one model together.

    local : its place among those of this machine; it says which GPU is its own.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def device(self) -> torch.device:
        """Where this process computes: a GPU if there is one."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local % torch.cuda.device_count())

    def average(self, tensors: list[Tensor]) -> None:
        """Replace the tensors by their means over all processes, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, *modules: nn.Module) -> None:
        """Make every process's gradients those of the whole batch."""
        parameters = [p for module in modules for p in module.parameters()]
        self.average([p.grad for p in parameters if p.grad is not None])

    def average_statistics(self, model: nn.Module) -> None:
        """Make the running statistics of batch norm the same everywhere."""
        with torch.no_grad():
            self.average([b for b in model.buffers() if b.dtype.is_floating_point])

    def agree(self, value: float) -> float:
        """Returns the value of the first process."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)


ALONE = Team()


def _join(team: Team, meeting: str) -> None:
    """Meet the others at a URL.

    NCCL carries a GPU's tensors where each process has a GPU of its own.
    """
    torch.set_num_threads(1)
    if team.size == 1:
        return
    backend = "gloo"
    if int(os.environ.get("LOCAL_WORLD_SIZE", team.size)) <= torch.cuda.device_count():
        torch.cuda.set_device(team.device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, meeting, PATIENCE, team.size, team.rank)


def _help(team: Team, meeting: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    _join(team, meeting)
    with suppress(UserError):  # the first process meets it, too, and reports it
        work(*arguments, team=team)


def launched() -> Team | None:
    """Returns the place that torchrun gave this process, or None without torchrun."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Team(rank, size, int(os.environ.get("LOCAL_RANK", rank)))


def one_training(out: Path) -> AbstractContextManager[None]:
    """Returns a lock of the file that a training writes. The first of torchrun's processes has it.

    Raises UserError where another training has it.
    """
    place = launched()
    if place is not None and place.rank > 0:
        return nullcontext()
    return alone(beside(out), f"--out {out}")


@contextmanager
def team(size: int, work: Callable[..., Any], *arguments: Any) -> Iterator[Team]:
    """Start size - 1 helpers that call work(*arguments, team=theirs). Yields this process's Team.

    The caller must call `work` with it, too. Helpers end with this process. Under torchrun nobody
    is started; the team is torchrun's processes.
    """
    place = launched()
    if place is not None and size > 1:
        raise UserError(f"--processes {size}: torchrun has started the processes; leave it out")
    helpers = []
    with tempfile.TemporaryDirectory() as folder:
        meeting = "env://" if place else f"file://{folder}/store"
        context = multiprocessing.get_context("spawn")
        for rank in range(1, size):
            there = Team(rank, size, rank)
            arguments_there = (there, meeting, work, arguments)
            helpers.append(context.Process(target=_help, args=arguments_there, daemon=True))
            helpers[-1].start()
        place = place or Team(0, size)
        _join(place, meeting)
        try:
            yield place
            for helper in helpers:
                helper.join(60)
        finally:
            for helper in helpers:
                helper.terminate()
            if place.size > 1:
                dist.destroy_process_group()
