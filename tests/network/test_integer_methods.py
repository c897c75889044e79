"""IntegerNetwork refuses parts that its methods have not, lack or could not hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.errors import UserError
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from tests.random_networks import random_network

METHODS = {
    "plain": Repair(),
    "single": Repair(double_residual=False),
    "adabin": Repair(binary_sets="adabin"),
    "spatial": Repair(scaling="spatial", double_residual=False),
    "features": Repair(ensemble="features-2"),
    "weights": Repair(ensemble="weights-3", double_residual=False),
    "after": Repair(activation="rprelu"),
    "before": Repair(activation="rprelu", activation_position="before-add"),
    "gate": Repair(squeeze_excitation="se"),
    "binary": Repair(downsample="conv1x1-binary"),
    "8-bit": Repair(downsample="conv1x1-8bit"),
    "thermometer": Repair(stem="thermometer"),
}


def network_of(method: str) -> IntegerNetwork:
    spec = NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=METHODS[method])
    return random_network(spec)


def changed(method: str, place: int, **parts: object) -> None:
    """Build the method's network with other parts in a convolution (2 has the shortcut)."""
    network = network_of(method)
    convolutions = list(network.convolutions)
    convolutions[place] = replace(convolutions[place], **parts)
    replace(network, convolutions=tuple(convolutions))


def with_value(array: np.ndarray, value: int) -> np.ndarray:
    result = array.copy()
    result.flat[-1] = value
    return result


@pytest.mark.parametrize(
    ("method", "part", "place"),
    [
        ("spatial", "spatial", 0),
        ("after", "after", 1),
        ("before", "before", 1),
        ("gate", "gate", 0),
        ("binary", "shortcut", 2),
        ("8-bit", "shortcut", 2),
    ],
)
def test_parts_are_there_where_the_spec_asks_for_them_and_nowhere_else(method, part, place):
    given = getattr(network_of(method).convolutions[place], part)
    name = network_of(method).convolutions[place].shape.name
    with pytest.raises(UserError, match=rf"{name}\.{part}: a convolution .* needs one"):
        changed(method, place, **{part: None})
    with pytest.raises(UserError, match=rf"{name}\.{part}: a convolution .* has none"):
        changed("plain", place, **{part: given})
    if part == "shortcut":  # only where the shape changes
        with pytest.raises(UserError, match=r"stage1\.0\.conv2\.shortcut: .* has none"):
            changed(method, 3, shortcut=given)


def test_a_convolution_needs_what_makes_its_bits():
    for method, place, why in (
        ("plain", 0, "a shortcut"),
        ("single", 1, "a shortcut"),
        ("weights", 0, "several terms or spatial factors"),
        ("spatial", 2, "several terms or spatial factors"),
    ):
        with pytest.raises(UserError, match=f"has {why}, so it needs scale, bias and threshold"):
            changed(method, place, requantiser=None)
    with pytest.raises(UserError, match="has no shortcut, so it needs thresholds of its sums"):
        changed("single", 0, threshold=None)
    numbers = network_of("single").convolutions[1].requantiser
    with pytest.raises(UserError, match="gives bits of its sums, so it has a threshold alone"):
        changed("single", 0, requantiser=numbers)


def test_terms_are_those_of_the_ensemble():
    (term,) = network_of("features").convolutions[0].further
    with pytest.raises(UserError, match=r"its terms take bits \(0,\), must take \(0, 1\)"):
        changed("features", 0, further=())
    with pytest.raises(UserError, match=r"take bits \(0, 0\), must take \(0, 1\)"):
        changed("features", 0, further=(replace(term, feature=0),))
    with pytest.raises(UserError, match=r"further\[0\]\.weights: must be the first term's"):
        changed("features", 0, further=(replace(term, weights=-term.weights),))
    with pytest.raises(UserError, match=r"further\[0\]\.scale\[3\]=32768"):
        changed("features", 0, further=(replace(term, scale=with_value(term.scale, 32768)),))
    (term,) = network_of("adabin").convolutions[0].further
    everyone = np.repeat(term.weights, 4, 0)
    with pytest.raises(UserError, match=r"needs int8 \(1, 3, 3, 4\), has int8 \(4, 3, 3, 4\)"):
        changed("adabin", 0, further=(replace(term, weights=everyone),))
    with pytest.raises(UserError, match=r"further\[0\]\.weights: must be -1 or \+1"):
        changed("adabin", 0, further=(replace(term, weights=term.weights * 2),))


def test_an_ensemble_has_a_threshold_for_each_bit():
    part = network_of("features").convolutions[0].requantiser
    assert len(part.thresholds) == 2
    with pytest.raises(UserError, match=r"threshold: needs int32 \(2, 4\), has int32 \(4,\)"):
        changed("features", 0, requantiser=replace(part, threshold=part.threshold[0]))
    with pytest.raises(UserError, match=r"threshold\[7\]=129: must lie in \[-128, 128\]"):
        changed("features", 0, requantiser=replace(part, threshold=with_value(part.threshold, 129)))


@pytest.mark.parametrize("place", ["before", "after"])
def test_activations_fit_their_bits(place):
    part = getattr(network_of(place).convolutions[0], place)
    for name, value, limits in (
        ("shift_in", 32768, r"\[-32768, 32767\]"),
        ("shift_out", -32769, r"\[-32768, 32767\]"),
        ("positive", -32769, r"\[-32768, 32767\]"),
        ("negative", 32768, r"\[-32768, 32767\]"),
    ):
        wrong = replace(part, **{name: with_value(getattr(part, name), value)})
        with pytest.raises(UserError, match=rf"conv1\.{place}\.{name}\[3\]={value}: .*{limits}"):
            changed(place, 0, **{place: wrong})


def test_gates_fit_their_bits():
    part = network_of("gate").convolutions[0].gate
    for wrong, message in (
        (dict(scale1=with_value(part.scale1, 32768)), r"gate\.scale1\[1\]=32768: must lie in"),
        (dict(w1=part.w1[:, :3]), r"gate\.w1: needs int8 \(2, 4\), has int8 \(2, 3\)"),
        (dict(w2=part.w2.astype(np.int16)), r"gate\.w2: needs int8 \(4, 2\), has int16"),
        (dict(bias2=part.bias2[:3]), r"gate\.bias2: needs int32 \(4,\)"),
        (dict(bias2=with_value(part.bias2, -32769)), r"gate\.bias2\[3\]=-32769: must lie in"),
    ):
        with pytest.raises(UserError, match=message):
            changed("gate", 0, gate=replace(part, **wrong))


def test_shortcuts_fit_their_bits():
    binary = network_of("binary").convolutions[2].shortcut
    eight = network_of("8-bit").convolutions[2].shortcut
    for method, part, message in (
        ("binary", eight, "is not the spec's conv1x1-binary"),
        ("8-bit", binary, "is not the spec's conv1x1-8bit"),
        ("binary", replace(binary, pre_shift=2), "pre_shift=2: must be 1"),
        ("binary", replace(binary, weights=binary.weights * 0), r"weights: must be -1 or \+1"),
        ("8-bit", replace(eight, pre_shift=0), "pre_shift=0: half must fit 16 bits"),
        ("8-bit", replace(eight, pre_shift=25), r"pre_shift=25: must lie in \[0, 24\]"),
        ("8-bit", replace(eight, weights=with_value(eight.weights, -128)), r"weights\[23\]=-128"),
        ("8-bit", replace(eight, bias=with_value(eight.bias, 32768)), r"bias\[5\]=32768"),
    ):
        with pytest.raises(UserError, match=rf"stage1\.0\.conv1\.shortcut.*{message}"):
            changed(method, 2, shortcut=part)


def test_8_bit_shortcuts_drop_as_many_bits():
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), repair=METHODS["8-bit"])
    network = random_network(spec)
    last = network.convolutions[4]
    other = replace(last, shortcut=replace(last.shortcut, pre_shift=11))
    convolutions = (*network.convolutions[:4], other, *network.convolutions[5:])
    with pytest.raises(UserError, match=r"pre_shift: \[10, 11\], must be the same in all"):
        replace(network, convolutions=convolutions)


def test_thermometers_fit_their_bits():
    network = network_of("thermometer")
    stem = network.stem
    falling = stem.levels[::-1].copy()
    for wrong, message in (
        (dict(levels=None), r"stem\.levels: not those of a stem=thermometer"),
        (dict(levels=falling), "stem.levels: must cut bytes in 7 equal parts"),
        (dict(levels=stem.levels[:-1]), "stem.levels: has 5, must be an even number from 2 to 254"),
        (dict(levels=stem.levels.astype(int)), "stem.levels: needs uint8"),
        (dict(weights=stem.weights[..., :-2]), r"stem\.weights: needs int8 \(4, 3, 3, 6\)"),
        (dict(pre_shift=0), r"stem\.pre_shift=0: must be 1"),
    ):
        with pytest.raises(UserError, match=message):
            replace(network, stem=replace(stem, **wrong))
    plain = network_of("plain")
    with pytest.raises(UserError, match=r"stem\.levels: not those of a stem=8-bit"):
        replace(plain, stem=replace(plain.stem, levels=stem.levels))


def test_spatial_factors_cover_the_map():
    with pytest.raises(UserError, match=r"spatial: needs uint8 \(4, 4\), has uint8 \(4, 3\)"):
        changed("spatial", 0, spatial=np.zeros((4, 3), np.uint8))


def formatted(method: str, formats: NumberFormats) -> IntegerNetwork:
    spec = NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=METHODS[method],
                       formats=formats)  # fmt: skip
    return random_network(spec)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"plain", "single", "thermometer"}))
def test_wide_numbers_between_operations_fit_16_bits(method):
    for width, guard in ((11, 4), (14, 1)):
        assert formatted(method, NumberFormats(width, 4, 12, guard)).spec.formats.guard == guard
    with pytest.raises(UserError, match=r"residual_width \+ guard = 16: must be at most 15"):
        formatted(method, NumberFormats(12, 4, 12, 4))


@pytest.mark.parametrize("method", ["spatial", "after", "before", "gate"])
def test_slopes_have_8_bits_after_the_point(method):
    assert formatted(method, NumberFormats(8, 4, 11, 3)).spec.repair == METHODS[method]
    with pytest.raises(UserError, match="scale_fraction - guard = 7: must be at least 8"):
        formatted(method, NumberFormats(8, 4, 11, 4))
