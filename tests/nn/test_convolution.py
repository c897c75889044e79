"""Binary convolutions of every method against its definition, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import untrained
from bnnhw.nn.convolution import BinaryConvolution

ROOT = (9 * 4) ** 0.5  # of the fan-in


def first(shortcut: bool = False, **repair) -> BinaryConvolution:
    """A random layer without shortcut, 4 to 4 channels, in evaluation mode."""
    repair = Repair(**{"double_residual": shortcut, **repair})
    spec = NetworkSpec(depth=4, widths=(4,), input=(6, 5, 1), repair=repair)
    return untrained(spec, seed=1).layers()[0]


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(seed))


def sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def column(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]


def correlate(bits: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(bits, weight, padding=1)


@torch.no_grad()
@pytest.mark.parametrize("normalization", ["shift", "none", "bn-before", "bn-after"])
def test_normalisations(normalization):
    layer, x = first(feature_normalization=normalization), features()
    seen = x
    if normalization == "bn-before":
        norm = layer.norm_before
        assert (norm.weight < 0).any()
        seen = (x - column(norm.running_mean)) / column(norm.running_var + norm.eps).sqrt()
        seen = seen * column(norm.weight.abs()) + column(norm.bias)
    y = correlate(sign(seen), sign(layer.weight))
    if normalization == "bn-after":
        y = layer.norm(y)
    else:
        y = y / ROOT
    if normalization == "shift":
        y = y + column(layer.shift)
    torch.testing.assert_close(layer(x), y)


@torch.no_grad()
def test_scaling_by_the_mean_of_the_weights():
    layer, x = first(scaling="channel-mean", feature_normalization="none"), features()
    alpha = layer.weight.abs().sum((1, 2, 3)) / 36
    torch.testing.assert_close(
        layer(x), column(alpha) * correlate(sign(x), sign(layer.weight)) / ROOT
    )


@torch.no_grad()
def test_scaling_by_learned_factors():
    x = features()
    layer = first(scaling="channel-learned", feature_normalization="none")
    y = correlate(sign(x), sign(layer.weight)) / ROOT
    torch.testing.assert_close(layer(x), column(layer.scale) * y)
    layer = first(scaling="spatial", feature_normalization="none")
    layer.spatial_rows[0], layer.spatial_columns[0] = 100.0, -1.0
    factors = torch.outer(layer.spatial_rows, layer.spatial_columns)
    assert (factors.min() < 0) and (factors.max() > 4)
    y = correlate(sign(x), sign(layer.weight)) / ROOT
    expected = column(layer.scale) * y * factors.clamp(0, 255 / 64)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("scaling", ["none", "channel-mean", "channel-learned", "spatial"])
def test_accumulators_of_zero_stay_zero(scaling):
    """Their sign is +1, which rounding must not change."""
    layer, x = first(scaling=scaling, feature_normalization="none"), features()
    zero = correlate(sign(x), sign(layer.weight)) == 0
    assert zero.sum() > 10 and not layer(x)[zero].any()


@torch.no_grad()
@pytest.mark.parametrize("bases", [2, 3])
def test_several_bases_of_the_weights(bases):
    """ABC-Net: the sum of alpha_m times the convolution with base m."""
    layer, x = first(ensemble=f"weights-{bases}"), features()
    parts = zip(layer.weight.chunk(bases), layer.base_gain.chunk(bases), strict=True)
    y = sum(column(gain) * correlate(sign(x), sign(base)) for base, gain in parts)
    torch.testing.assert_close(layer(x), layer.norm(y))


@torch.no_grad()
@pytest.mark.parametrize("padding", ["zero", "minus-one"])
@pytest.mark.parametrize("count", [2, 3])
def test_several_thresholds_of_the_features(count, padding):
    """ABC-Net: the sum of beta_n times the convolution of the bits of threshold n."""
    layer = first(ensemble=f"features-{count}", padding=padding)
    x, y = features(), 0.0
    for threshold, gain in zip(layer.binarizer.threshold, layer.feature_gain, strict=True):
        bits = F.pad(sign(x - column(threshold)), (1, 1, 1, 1), value=-float(padding != "zero"))
        y = y + gain * F.conv2d(bits, sign(layer.weight))
    torch.testing.assert_close(layer(x), layer.norm(y))


@torch.no_grad()
def test_branches_have_their_own_weights_thresholds_and_norm():
    layer, x = first(ensemble="group-2"), features()
    maps = [
        correlate(sign(x - column(threshold)), sign(weight))
        for threshold, weight in zip(layer.binarizer.threshold, layer.weight.chunk(2), strict=True)
    ]
    assert layer.norm.num_features == 8
    both = layer.norm(torch.cat(maps, 1))
    torch.testing.assert_close(layer(x), both[:, :4] + both[:, 4:])


@torch.no_grad()
@pytest.mark.parametrize("normalization", ["none", "bn-after"])
def test_adabin_has_two_values_of_weights_and_features(normalization):
    """2208.08084: centre and distance of weights from their mean and deviation, of features
    learned; padded taps are the centre."""
    layer = first(binary_sets="adabin", feature_normalization=normalization)
    x, w = features(), layer.weight
    centre, distance = layer.binarizer.centre, layer.binarizer.distance.abs()
    assert centre != 0 and distance != 1
    mean = w.mean((1, 2, 3), keepdim=True)
    deviation = (w - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    weights = deviation * sign(w - mean) + mean
    values = centre + distance * sign(x - centre)
    padded = F.pad(values, (1, 1, 1, 1), value=float(centre))
    y = F.conv2d(padded, weights)
    if normalization == "none":
        torch.testing.assert_close(layer(x), y / ROOT)
    else:  # which takes away what is constant
        constant = (centre * weights).sum((1, 2, 3))
        torch.testing.assert_close(layer(x), layer.norm(y - column(constant)))


@torch.no_grad()
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("position", ["before-add", "after-add"])
def test_activations_follow_the_add_where_there_is_one(shortcut, position):
    layer = first(shortcut, activation="rprelu", activation_position=position)
    x, stream = features(), features(1) if shortcut else None
    bare = layer.norm(correlate(sign(x), sign(layer.weight)))
    if not shortcut:
        expected = layer.activation(bare)
    elif position == "after-add":
        expected = layer.activation(bare + stream)
    else:
        expected = layer.activation(bare) + stream
    torch.testing.assert_close(layer(x, stream), expected)


@torch.no_grad()
def test_gates_come_just_before_the_shortcut_is_added():
    layer = first(True, squeeze_excitation="se", activation="maxout",
                  activation_position="before-add")  # fmt: skip
    x, stream = features(), features(1)
    bare = layer.activation(layer.norm(correlate(sign(x), sign(layer.weight))))
    torch.testing.assert_close(layer(x, stream), layer.gate(bare) + stream)
    assert first(False, squeeze_excitation="se").gate is None


@torch.no_grad()
def test_libra_centres_the_weights_of_each_channel():
    layer = first(weight_normalization="libra")
    layer.weight += 0.5
    x, centred = features(), layer.weight - layer.weight.mean((1, 2, 3), keepdim=True)
    assert (sign(centred) != sign(layer.weight)).any()
    torch.testing.assert_close(layer(x), layer.norm(correlate(sign(x), sign(centred))))


def test_weights_for_bop_are_binary_from_the_start():
    spec = NetworkSpec(depth=4, widths=(4,), input=(4, 4, 1), repair=Repair(optimizer="bop"))
    layer = BinaryConvolution(spec.convolutions()[0], spec)
    assert set(layer.weight.detach().unique().tolist()) == {-1, 1}
