"""A training step as one CUDA graph, launched at once rather than kernel by kernel.

The kernels of a small network take less time than Python needs to launch them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from bnnhw.training.batches import Batch

WARM_UP = 3  # steps as they are, in which all that is made on first use is made


class Graphed:
    """A step Batch -> loss. It is captured after a few calls and replayed from then on.

    All that differs from one step to the next must be in tensors that stay where they are. Nothing
    may wait for the GPU. The next call overwrites the loss.
    """

    def __init__(self, step: Callable[[Batch], Tensor]) -> None:
        self.step, self.stream = step, torch.cuda.Stream()
        self.kind: Hashable = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def __call__(self, batch: Batch, kind: Hashable) -> Tensor:
        """Returns the loss. A new `kind` means another step, which is captured anew."""
        if kind != self.kind:
            self.kind, self.graph, self.calls = kind, None, 0
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self._aside(batch)
        if self.graph is None:
            self._capture(batch)
        for mine, theirs in zip(_tensors(self.given), _tensors(batch), strict=True):
            mine.copy_(theirs)
        assert self.graph is not None
        self.graph.replay()
        return self.loss

    def _aside(self, batch: Batch) -> Tensor:
        """Returns the loss of a step on the stream that will capture it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss

    def _capture(self, batch: Batch) -> None:
        """Record the step. It computes nothing now."""
        taught = None if batch.taught is None else batch.taught.clone()
        self.given = Batch(batch.pixels.clone(), batch.labels.clone(), taught)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.loss = self.step(self.given)
        self.graph = graph


def _tensors(batch: Batch) -> list[Tensor]:
    return [part for part in (batch.pixels, batch.labels, batch.taught) if part is not None]
