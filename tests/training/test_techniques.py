"""Every training technique learns the digits, with the precision and layout of real training."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from bnnhw import datasets
from bnnhw.network.repair import CATEGORIES, TRAINING, Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.training import losses, optimisers

STEPS, BATCH = 24, 64
RATES = {"adam": 0.01, "sgd": 0.1, "bop": 0.01}
PENALTIES = {"l2": 5e-5, "r1": 1e-6, "r2": 1e-6, "kurtosis": 1.0}
TECHNIQUES = [
    {category.name: value}
    for category in CATEGORIES
    if category.cost == TRAINING and category.name != "teacher_student"
    for value in list(category.values)[1:]
]
TOGETHER = {
    "feature_binarizer": "approxsign", "weight_binarizer": "ede", "weight_normalization": "libra",
    "regularization": "kurtosis", "two_stage": "features-first", "optimizer": "sgd",
}  # fmt: skip


@cache
def digits() -> tuple[Tensor, Tensor]:
    images = datasets.load("digits", split="train")
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2)
    return pixels, torch.from_numpy(images.labels)


def network(repair: Repair, seed: int = 0) -> BinaryResNet:
    torch.manual_seed(seed)
    spec = NetworkSpec(8, (8, 16, 16), (8, 8, 1), repair=repair)
    return BinaryResNet(spec).to(memory_format=torch.channels_last).train()


def train(repair: Repair, weight: float | None = None) -> tuple[BinaryResNet, list[float]]:
    """The trained network and the cross entropy of each step.

    weight : of the regularisation, where it is not the usual one.
    """
    model = network(repair)
    penalty = losses.Penalty(model)
    optimiser = optimisers.build(model, penalty, lr=RATES[repair.optimizer], weight_decay=1e-4)
    pixels, labels = digits()
    history = []
    for step in range(STEPS):
        part = slice(step * BATCH % 1024, step * BATCH % 1024 + BATCH)
        model.anneal(step / STEPS)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels[part])
        loss = losses.objective(
            model, logits, labels[part], regulariser=penalty,
            penalty=PENALTIES.get(repair.regularization, 0.0) if weight is None else weight,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(1.0)
        history.append(torch.nn.functional.cross_entropy(logits, labels[part]).item())
    return model, history


@pytest.mark.parametrize("change", [{}, *TECHNIQUES, TOGETHER], ids=str)
def test_learns(change):
    model, history = train(Repair(**change))
    first, last = sum(history[:4]) / 4, sum(history[-4:]) / 4
    assert last < 0.7 * first
    assert all(weight.grad is not None for weight in model.latent_weights())


@pytest.mark.parametrize(("kind", "weight"), [("l2", 1e-2), ("r1", 1e-2), ("r2", 1e-2),
                                              ("kurtosis", 1.0)])  # fmt: skip
def test_penalties_shrink_what_they_punish(kind, weight):
    repair = Repair(regularization=kind)

    def left(model: BinaryResNet) -> float:
        """With scales as they are at first."""
        return losses.Penalty(model)(model.latent_weights()).item()

    assert left(train(repair, weight)[0]) < 0.8 * left(train(repair, 0.0)[0])


def test_a_teacher_replaces_the_labels():
    """All the weight on logits that know the classes, none on labels that are all the same."""
    model = network(Repair())
    optimiser = optimisers.build(model, losses.Penalty(model), lr=0.01, weight_decay=0.0)
    pixels, labels = digits()
    history = []
    for step in range(STEPS):
        part = slice(step * BATCH % 1024, step * BATCH % 1024 + BATCH)
        taught = 10.0 * torch.nn.functional.one_hot(labels[part], 10)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels[part])
        wrong = torch.zeros_like(labels[part])
        loss = losses.objective(model, logits, wrong, taught=taught, distil=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(1.0)
        history.append((logits.argmax(1) == labels[part]).float().mean().item())
    assert sum(history[-4:]) / 4 > 0.5 > 0.35 > sum(history[:4]) / 4


def test_a_teachers_maps_are_learned():
    model, teacher = network(Repair()), network(Repair(), seed=1)
    optimiser = optimisers.build(model, losses.Penalty(model), lr=0.01, weight_decay=0.0)
    pixels, labels = digits()
    pixels, labels = pixels[:BATCH], labels[:BATCH]
    history = []
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            logits, maps = model.stages(pixels)
            with torch.no_grad():
                _, theirs = teacher.stages(pixels)
        loss = losses.objective(model, logits, labels, maps=maps, teacher_maps=theirs, distil=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(1.0)
        history.append(losses.attention(maps, theirs).item())
    assert history[-1] < 0.7 * history[0]
