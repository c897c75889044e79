"""Exact epochs: the integer network's own streams, with the float network's gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnnhw import datasets, golden
from bnnhw.lowering.lower import lower
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import untrained
from bnnhw.training.exact import follow, freeze_statistics
from bnnhw.training.recipe import Recipe
from bnnhw.training.streams import integers
from bnnhw.training.trainer import Trainer, classify

pytestmark = pytest.mark.usefixtures("one_thread")


def network(width: int = 4, **repair) -> NetworkSpec:
    formats = NumberFormats(residual_fraction=4)
    return NetworkSpec(8, (width, width, 2 * width), (8, 8, 1), 10, Repair(**repair), formats)


REPAIRS = [
    dict(),
    dict(double_residual=False),
    dict(feature_binarizer="rsign"),
    dict(ensemble="features-2", activation="rprelu", downsample="avgpool-duplicate"),
    dict(binary_sets="adabin", squeeze_excitation="se", stem="thermometer", double_residual=False),
]


@pytest.mark.parametrize("repair", REPAIRS, ids=str)
def test_the_streams_are_those_of_the_device(repair):
    model = untrained(network(**repair), 3)
    pixels = datasets.load("digits").first(40).pixels
    exact = golden.run(lower(model), pixels, "all")
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        alone = model.stages(batch)[1]
        with follow(model, integers(model, batch)[0]):
            logits, streams = model.stages(batch)
    steps = [exact[f"stage{stage}.0.conv2.residual"] for stage in range(3)]
    for stream, expected in zip(streams, steps, strict=True):
        assert np.array_equal(stream.permute(0, 2, 3, 1).numpy() * 16, expected)
    assert not all(torch.equal(a, b) for a, b in zip(alone, streams, strict=True))
    assert (logits.argmax(1).numpy() == exact["class"]).mean() >= 0.95  # its bias is rounded
    assert torch.equal(model.stages(batch)[1][2], alone[2])  # it follows no longer


def test_the_gradient_is_the_float_networks():
    model = untrained(network(), 3)
    batch = torch.from_numpy(datasets.load("digits").first(8).pixels).permute(0, 3, 1, 2)
    labels = torch.arange(8)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), labels).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    outputs = {}
    parts = {"stem": model.stem, **{layer.shape.name: layer for layer in model.layers()}}
    hooks = [
        part.register_forward_hook(lambda part, x, y, name=name: outputs.update({name: y.detach()}))
        for name, part in parts.items()
    ]
    plain = gradients()
    for hook in hooks:
        hook.remove()
    with follow(model, {name: y.clamp(-8, 127 / 16) for name, y in outputs.items()}):
        followed = gradients()  # of the values it has anyway
    for name, gradient in plain.items():
        torch.testing.assert_close(followed[name], gradient)
    with follow(model, {"stem": torch.zeros(8, 4, 8, 8)}):
        assert not torch.equal(gradients()["head.weight"], plain["head.weight"])


def test_statistics_stay_and_every_constant_learns():
    spec = network()
    train, validation = (
        datasets.load("digits", split="train").first(256),
        datasets.load("digits").first(50),
    )
    recipe = Recipe("digits", epochs=2, exact_epochs=1, batch=32, crop=0, flip=False)
    trainer = Trainer(spec, recipe, train, validation, integers=integers)
    states, told = [], []

    def keep(top1: float) -> None:
        states.append({name: x.clone() for name, x in trainer.model.state_dict().items()})
        told.append((top1, golden.run(lower(trainer.model), validation.pixels)["class"]))

    trainer.run(lambda entry: None, keep)
    assert len(states) == 2  # no recalibration at the end
    assert told[1][0] == pytest.approx(100 * (told[1][1] == validation.labels).mean())
    trainer.model.train()
    freeze_statistics(trainer.model)
    trainer.model(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, states[1][name])
        if name.endswith(("norm.weight", "norm.bias", "head.bias")):
            assert not torch.equal(states[0][name], states[1][name]), name


def test_float_and_integers_agree_after_exact_epochs():
    images = datasets.load("digits")
    train = datasets.load("digits", split="train").first(800)
    recipe = Recipe("digits", epochs=6, exact_epochs=1, batch=32, crop=0, flip=False)
    trainer = Trainer(network(8), recipe, train, images.first(60), integers=integers)
    trainer.run(lambda entry: None, lambda top1: None)
    float_classes = classify(trainer.model, images.pixels)
    classes = golden.run(lower(trainer.model), images.pixels)["class"]
    assert (classes == float_classes).mean() > 0.95
    assert (classes == images.labels).mean() > 0.5
