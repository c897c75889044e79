"""Losses against numbers worked out by hand from their definitions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from bnnhw.errors import UserError
from bnnhw.network.repair import Repair
from bnnhw.training import losses

LATENT = [torch.tensor([[-0.5, 0.1], [0.3, 0.3]]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])]


def model(regularization: str = "none", latent=LATENT) -> SimpleNamespace:
    """As much of a network as a loss needs."""
    repair = Repair(regularization=regularization)
    return SimpleNamespace(spec=SimpleNamespace(repair=repair), latent_weights=lambda: latent)


def test_distillation_is_the_divergence_at_temperature_four():
    """Softened: mine (1/2, 1/2), the teacher's (3/4, 1/4), their divergence
    3/4 log 3/2 + 1/4 log 1/2 = 0.1308120; times 16 is 2.0929920."""
    mine = torch.zeros(1, 2, requires_grad=True)
    taught = torch.tensor([[4 * math.log(3), 0.0]])
    loss = losses.distillation(mine, taught)
    assert loss.item() == pytest.approx(2.092992, rel=1e-5)
    loss.backward()
    assert mine.grad.tolist() == [pytest.approx([-1.0, 1.0])]  # 4 (1/2 - 3/4)
    both = losses.distillation(torch.zeros(2, 2), torch.cat([taught, torch.zeros(1, 2)]))
    assert both.item() == pytest.approx(2.092992 / 2, rel=1e-5)


def test_attention_compares_normalised_sums_of_squares():
    """Sums of squares (5, 0) and (3, 4), normalised (1, 0) and (0.6, 0.8): 0.16 + 0.64 = 0.8."""
    mine = torch.tensor([[1.0, 0.0], [-2.0, 0.0]]).reshape(1, 2, 1, 2)
    theirs = torch.tensor([[1.0, 2.0], [1.0, 0.0], [-1.0, 0.0]]).reshape(1, 3, 1, 2)
    assert losses.attention([mine], [theirs]).item() == pytest.approx(0.8, rel=1e-6)
    assert losses.attention([mine, mine], [theirs, theirs]).item() == pytest.approx(1.6, rel=1e-6)
    # a second image whose maps differ by a factor only: the mean halves
    images, taught = torch.cat([mine, mine]), torch.cat([theirs[:, :2], 3 * mine])
    loss = losses.attention([images], [taught])  # (5, 0) and (2, 4)
    assert loss.item() == pytest.approx((2 - 2 / math.sqrt(5)) / 2, rel=1e-5)


def test_attention_teaches_the_stream():
    mine = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    mine.requires_grad_()
    losses.attention([mine], [torch.ones(2, 4, 3, 3)]).backward()
    assert mine.grad.dtype == torch.bfloat16 and mine.grad.abs().max() > 0


def test_attention_names_maps_that_do_not_fit():
    with pytest.raises(UserError, match=r"after stage 1 are \(3, 3\), the network's \(4, 4\)"):
        maps = [torch.ones(1, 2, 4, 4)] * 2
        losses.attention(maps, [maps[0], torch.ones(1, 2, 3, 3)])


def test_kurtosis_of_known_samples():
    """1 to 5: moments 2 and 6.8, so 1.7. Two values: 1. Even spread: 1.8."""
    assert losses.kurtosis(LATENT[1]).item() == pytest.approx(1.7)
    assert losses.kurtosis(torch.tensor([-1.0, 3.0, -1.0, 3.0])).item() == pytest.approx(1.0)
    assert losses.kurtosis(torch.linspace(-2, 7, 10001)).item() == pytest.approx(1.8, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", 0.0),
        ("l2", 0.44 + 55),
        # scales 0.3 and 3 at first: |0.3 - |w|| is 0.2, 0.2, 0, 0 and 2, 1, 0, 1, 2
        ("r1", 0.4 + 6),
        ("r2", 0.08 + 10),
        # first tensor: mean 0.05, moments 0.1075 and 0.02483125; second 1.7
        ("kurtosis", ((0.02483125 / 0.1075**2 - 1.8) ** 2 + 0.01) / 2),
    ],
)
def test_penalties(kind, expected):
    penalty = losses.Penalty(model(kind))
    assert penalty(LATENT).item() == pytest.approx(expected, rel=1e-4)
    assert len(list(penalty.parameters())) == (2 if kind in ("r1", "r2") else 0)


def test_scales_of_the_penalty_are_learned():
    """d/da of |a - |w|| is the sign of the difference; of its square twice the difference.

    a = 0.4 and 0.5: differences -0.1, 0.3, 0.3, 0.3 and -2.5, -2.5."""
    latent = [torch.tensor([-0.5, 0.1, 0.1, -0.1]), torch.tensor([3.0, -3.0])]
    for kind, expected in [("r1", [2.0, -2.0]), ("r2", [1.6, -10.0])]:
        penalty = losses.Penalty(model(kind, latent))
        with torch.no_grad():
            penalty.scales[0].fill_(0.4)
            penalty.scales[1].fill_(0.5)
        penalty(latent).backward()
        assert [scale.grad.item() for scale in penalty.scales] == pytest.approx(expected)


def test_the_objective_adds_what_it_is_given():
    logits, labels = torch.zeros(3, 10), torch.tensor([0, 4, 9])
    loss = losses.objective(model(), logits, labels)
    assert loss.item() == pytest.approx(math.log(10))

    taught = torch.zeros(3, 10)
    loss = losses.objective(model(), logits, labels, taught=taught, distil=0.25)
    assert loss.item() == pytest.approx(0.75 * math.log(10))

    mine, theirs = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    loss = losses.objective(
        model(), logits, labels, maps=[mine], teacher_maps=[theirs], distil=0.25
    )
    assert loss.item() == pytest.approx(math.log(10) + 0.25 * 2)

    taxed = model("l2")
    loss = losses.objective(taxed, logits, labels, regulariser=losses.Penalty(taxed), penalty=0.01)
    assert loss.item() == pytest.approx(math.log(10) + 0.5544)
