"""The trainer: its schedule, what settles a recipe, and every way to learn."""

from __future__ import annotations

import math

import pytest
import torch

from bnnhw.datasets import Images
from bnnhw.errors import UserError
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.teacher import Teacher
from bnnhw.training.recipe import Recipe
from bnnhw.training.trainer import Trainer, random_images

pytestmark = pytest.mark.usefixtures("one_thread")


def network(**repair) -> NetworkSpec:
    return NetworkSpec(8, (4, 4, 4), (8, 8, 1), 10, Repair(**repair))


def trained(spec: NetworkSpec, recipe: Recipe, images: Images, **more) -> tuple[Trainer, list]:
    trainer, told = Trainer(spec, recipe, images, images, **more), []
    trainer.run(lambda entry: told.append(entry) if "epoch" in entry else None, lambda top1: None)
    return trainer, told


def test_the_rate_warms_up_and_follows_a_cosine():
    recipe = Recipe(epochs=10, warm_up=0.1)
    assert recipe.rate(0) == pytest.approx(0.01)  # a thousandth of the schedule of a tenth of it
    assert recipe.rate(0.05) == pytest.approx(0.51 * math.cos(math.pi * 0.025) ** 2)
    assert recipe.rate(0.5) == pytest.approx(0.5) and recipe.rate(1) == pytest.approx(0)
    assert Recipe(epochs=10, warm_up=0).rate(0) == 1


def test_the_exact_epochs_have_a_schedule_of_their_own():
    recipe = Recipe(epochs=10, exact_epochs=2)
    assert recipe.rate(0.4) == pytest.approx(0.5) and recipe.phase(0.4) == pytest.approx(0.5)
    assert recipe.rate(0.8) == pytest.approx(0.02) and recipe.phase(0.8) == 1
    assert recipe.rate(0.9) == pytest.approx(0.01) and recipe.rate(1) == 0
    assert Recipe(epochs=1, exact_epochs=1).rate(0.5) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        (dict(), dict(lr=1e-2, weight_decay=0.0, distil=0.0, penalty=0.0)),
        (dict(optimizer="sgd"), dict(lr=0.1, weight_decay=1e-4)),
        (dict(optimizer="bop"), dict(lr=1e-2, weight_decay=0.0)),
        (dict(teacher_student="attention"), dict(distil=0.5)),
        (dict(regularization="kurtosis"), dict(penalty=0.01)),
    ],
)
def test_repair_methods_settle_what_a_recipe_leaves_open(repair, expected):
    settled = Recipe(epochs=1).settled(Repair(**repair))
    assert {name: getattr(settled, name) for name in expected} == expected
    given = Recipe(epochs=1, lr=0.3, weight_decay=0.2)
    assert given.settled(Repair(**repair)).lr == 0.3
    assert given.settled(Repair(**repair)).weight_decay == 0.2


@pytest.mark.parametrize("kind", ["logits", "attention"])
def test_a_teacher_is_followed(kind):
    torch.manual_seed(1)
    teacher = Teacher(1, (4, 4, 4), 10, 1).requires_grad_(False).eval()
    spec = network(teacher_student=kind)
    images = random_images(spec, 64)
    losses = []
    for distil in (0.0, 1.0):
        recipe = Recipe("digits", epochs=4, batch=16, distil=distil)
        losses.append([e["loss"] for e in trained(spec, recipe, images, teacher=teacher)[1]])
    assert losses[1] != losses[0] and losses[1][-1] < losses[1][0]


def test_a_teacher_that_nobody_follows_is_refused():
    spec = network()
    images = random_images(spec, 16)
    with pytest.raises(UserError, match="teacher_student=none: give --teacher with"):
        Trainer(spec, Recipe(epochs=1, batch=8), images, images, teacher=Teacher(1, (4,), 10, 1))


@pytest.mark.parametrize(
    "repair",
    [
        dict(optimizer="sgd"),
        dict(optimizer="bop"),
        dict(regularization="r1"),
        dict(weight_binarizer="recu", feature_binarizer="ede"),
        dict(two_stage="features-first"),
    ],
    ids=str,
)
def test_training_goes_on_exactly_from_its_state(repair, tmp_path):
    spec = network(**repair)
    images = random_images(spec, 48)
    recipe = Recipe("digits", epochs=3, batch=16)
    whole, states = Trainer(spec, recipe, images, images), []
    torch.manual_seed(7)

    def keep(top1: float) -> None:
        torch.save(whole.state(), tmp_path / f"{len(states)}")
        states.append(tmp_path / f"{len(states)}")

    whole.run(lambda entry: None, keep)
    again = Trainer(spec, recipe, images, images)
    again.restore(torch.load(states[0], weights_only=True), states[0])
    assert again.epoch == 1
    again.run(lambda entry: None, lambda top1: None)
    for mine, theirs in ((again.model, whole.model), (again.regulariser, whole.regulariser)):
        expected = theirs.state_dict()
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
