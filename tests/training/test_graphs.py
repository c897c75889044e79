"""Captured steps: when a step is captured, and, on a GPU, that it trains as the step itself."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from bnnhw.network.methods import isolated
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.teacher import Teacher
from bnnhw.training import graphs
from bnnhw.training.batches import Batch
from bnnhw.training.graphs import WARM_UP, Graphed
from bnnhw.training.trainer import Recipe, Trainer, random_images

STEPS = WARM_UP + 4
BATCH = 32


@pytest.fixture
def cuda(monkeypatch):
    """A GPU's graphs, played on the CPU: a replay computes the step on the captured inputs."""

    class Stream:
        def wait_stream(self, other):
            pass

    class Graph:
        def replay(self):
            self.result.copy_(self.step(self.given))

    @contextmanager
    def streaming(stream):
        yield

    class Capture:
        def __init__(self, graph, stream):
            self.graph = graph

        def __enter__(self):
            captured.append(self.graph)

        def __exit__(self, *error):
            pass

    captured: list[Graph] = []
    fakes = dict(Stream=Stream, CUDAGraph=Graph, graph=Capture, stream=streaming)
    for name, fake in fakes.items():
        monkeypatch.setattr(graphs.torch.cuda, name, fake)
    monkeypatch.setattr(graphs.torch.cuda, "current_stream", Stream)
    return captured


def batches(count: int) -> list[Batch]:
    return [Batch(torch.full((1,), i), torch.full((1,), 10 * i), None) for i in range(1, count + 1)]


def test_a_step_is_captured_once_and_replayed_with_each_batch(cuda):
    ran = []

    def step(given: Batch) -> torch.Tensor:
        ran.append(given)
        if cuda and not hasattr(cuda[-1], "step"):
            cuda[-1].step, cuda[-1].given = step, given
            cuda[-1].result = (given.pixels + given.labels).clone()
            return cuda[-1].result
        return given.pixels + given.labels

    graphed = Graphed(step)
    given = batches(WARM_UP + 3)
    losses = [int(graphed(batch, False)) for batch in given]
    assert losses == [11 * i for i in range(1, WARM_UP + 4)]
    assert len(cuda) == 1 and ran[:WARM_UP] == given[:WARM_UP]
    assert len({id(batch) for batch in ran[WARM_UP:]}) == 1, "replays see the captured tensors"
    graphed(given[0], True)
    assert ran[-1] is given[0], "a step of another kind runs as it is again"
    for batch in given[1:]:
        assert int(graphed(batch, True)) == 11 * int(batch.pixels)
    assert len(cuda) == 2


TRAINED = [(method, False) for method in isolated()] + [(isolated()[0], True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("method", "compiled"), TRAINED)
def test_a_captured_training_is_the_training(method, compiled, monkeypatch):
    """The parameters go where they go without it, through all rates and kinds of weights."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    spec = NetworkSpec(8, (16, 32, 64), (32, 32, 3), repair=method.repair)
    images = random_images(spec, STEPS * BATCH)
    moves = []
    for captured in (True, False):
        teacher = Teacher(1) if spec.repair.teacher_student != "none" else None
        trainer = Trainer(
            spec, Recipe(epochs=2, batch=BATCH, lr=1e-3), images, images, teacher=teacher,
            compiled=compiled and captured,
        )  # fmt: skip
        if not captured:
            trainer.graphed = None
        monkeypatch.setattr(trainer, "_finish", lambda keep: None)
        before = torch.cat([value.detach().flatten() for value in trainer.model.parameters()])
        trainer.run(lambda entry: None, lambda top1: None)
        assert captured == (trainer.graphed is not None and trainer.graphed.graph is not None)
        after = torch.cat([value.detach().flatten() for value in trainer.model.parameters()])
        moves.append(after - before)
    mine, theirs = moves
    assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=0.3)
    assert torch.cosine_similarity(mine, theirs, dim=0) > 0.5
