"""The rules of a NetworkSpec and how their breach is told."""

from __future__ import annotations

import pytest

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair

THERMOMETER = Repair(stem="thermometer")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(depth=21), r"depth=21: must be 6n\+2 for 3 stages, such as 8, 14, 20"),
        (dict(depth=2), "depth=2: must be a whole number from 8 to 202"),
        (dict(depth=True), "depth=True"),
        (dict(depth=20.0), "depth=20.0"),
        (dict(widths=(16, 33, 64)), r"widths=\(16, 33, 64\): 33 is odd"),
        (dict(widths=(32, 16, 64)), "must not be narrower"),
        (dict(widths=()), "give one to five stages"),
        (dict(widths=(16, 32, 2048)), "widths=2048: must be a whole number from 2 to 1024"),
        (dict(input=(32, 32)), "give height x width x channels"),
        (dict(input=(4, 32, 3)), "input height=4: must be a whole number from 8 to 256"),
        (dict(input=(32, 257, 3)), "input width=257"),
        (dict(input=(32, 32, 9)), "input channels=9"),
        (dict(classes=1), "classes=1: must be a whole number from 2 to 256"),
        (dict(classes=257), "classes=257"),
        (dict(pad=(1, 2)), r"pad=\(1, 2\): give a byte for each of 3 colours"),
        (dict(pad=(1, 2, 256)), "pad=256: must be a whole number from 0 to 255"),
        (dict(levels=(1, 2)), "levels: only stem=thermometer has them, not 8-bit"),
        (dict(levels=(1, 0), repair=THERMOMETER), "levels=0: must be a whole number from 1 to 255"),
        (dict(levels=(2, 1), repair=THERMOMETER), "give an even number of rising bytes"),
        (dict(levels=(2,), repair=THERMOMETER), "give an even number of rising bytes"),
        (dict(stem_activation="relu"), "stem_activation='relu': choose one of none, prelu"),
        (dict(adabin_padding="zero"), "only features of binary_sets=adabin have a centre"),
        (
            dict(adabin_padding="zero", repair=Repair(binary_sets="adabin", scaling="spatial")),
            "cannot be had with scaling=spatial",
        ),
        (dict(formats=NumberFormats(residual_fractions=(3, 4))), "give one for each of 3 stages"),
    ],
)
def test_wrong_networks_are_explained(settings, message):
    with pytest.raises(UserError, match=message):
        NetworkSpec(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Repair, dict(feature_binarizer="relu"), "choose one of 'ste', 'approxsign'"),
        (Repair, dict(double_residual="yes"), "double_residual='yes': choose one of False, True"),
        (Repair, dict(padding="same"), "choose one of 'zero', 'minus-one'"),
        (Repair, dict(downsample="conv"), "choose one of 'pad'"),
        (NumberFormats, dict(residual_width=7), "from 8 to 16"),
        (NumberFormats, dict(residual_fraction=8), "from 0 to 7"),
        (NumberFormats, dict(residual_fractions=(4, 8)), "residual_fraction=8: .* from 0 to 7"),
        (NumberFormats, dict(scale_fraction=3), "from 4 to 14"),
        (NumberFormats, dict(guard=0), "from 1 to 6"),
    ],
)
def test_wrong_settings_are_explained(kind, settings, message):
    with pytest.raises(UserError, match=message):
        kind(**settings)


@pytest.mark.parametrize("double", [False, True])
def test_each_stage_has_its_point(double):
    formats = NumberFormats(residual_fractions=(3, 5, 4))
    layers = NetworkSpec(8, repair=Repair(double_residual=double), formats=formats).convolutions()
    assert [layer.fraction for layer in layers] == [3, 3, 5, 5, 4, 4]
    added = [layer.shortcut_fraction for layer in layers if layer.shortcut]
    assert added == ([3, 3, 3, 5, 5, 4] if double else [3, 3, 5])
    finer = formats.finer(-4)
    assert finer.residual_fractions == (0, 1, 0) and finer.residual_fraction == 0
    assert formats.at(6) == NumberFormats(residual_fraction=6)


@pytest.mark.parametrize("double", [False, True])
def test_resnet20(double):
    spec = NetworkSpec(repair=Repair(double_residual=double))
    layers = spec.convolutions()
    assert len(layers) == 18 and spec.blocks == (3, 3, 3)
    assert [layer.name for layer in layers[5:8]] == ["stage0.2.conv2", "stage1.0.conv1",
                                                     "stage1.0.conv2"]  # fmt: skip
    assert [layer.shortcut for layer in layers] == ([True] * 18 if double else [False, True] * 9)
    first, second = layers[6], layers[7]
    assert (first.in_channels, first.out_channels, first.stride) == (16, 32, 2)
    assert (first.height, first.out_height, second.height) == (32, 16, 16)
    assert (second.shortcut_stride, second.shortcut_channels) == ((1, 32) if double else (2, 16))
    assert (first if double else second).shortcut_offset == 8
    assert sum(layer.macs for layer in layers) == 40_108_032


def test_odd_sizes_round_up():
    layers = NetworkSpec(depth=6, widths=(2, 6), input=(9, 7, 1)).convolutions()
    assert [(layer.out_height, layer.out_width) for layer in layers] == [(9, 7)] * 2 + [(5, 4)] * 2


@pytest.mark.parametrize(
    ("narrow", "wide", "offset"),
    [(16, 32, 8), (32, 64, 16), (32, 48, 8), (64, 128, 32), (16, 36, 10), (4, 10, 0), (8, 8, 0)],
)
def test_shortcut_channels_go_to_the_middle_where_groups_of_16_allow(narrow, wide, offset):
    layer = NetworkSpec(depth=6, widths=(narrow, wide)).convolutions()[2]
    assert layer.shortcut_offset == offset


def test_dict_round_trip():
    spec = NetworkSpec(depth=14, widths=(16, 32, 48), input=(24, 24, 1), classes=7,
                       repair=Repair("rsign", False, "minus-one"),
                       formats=NumberFormats(10, 5, residual_fractions=(3, 5, 6)),
                       pad=(7,), stem_activation="maxout")  # fmt: skip
    plain = spec.to_dict()
    assert plain["widths"] == [16, 32, 48] and plain["repair"]["padding"] == "minus-one"
    assert NetworkSpec.from_dict(plain) == spec
    assert NetworkSpec.from_dict({}) == NetworkSpec()


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (None, "spec: must be a table of settings, not NoneType"),
        (dict(colour="red"), "spec: unknown setting 'colour'; a newer bnnhw may know it"),
        (dict(repair=dict(se=4)), "spec.repair: unknown setting 'se'"),
        (dict(repair=[]), "spec.repair: must be a table"),
        (dict(formats=dict(width=4)), "spec.formats: unknown setting 'width'"),
        (dict(formats=dict(residual_fractions=4)), "residual_fractions: must be a list"),
        (dict(widths=16), "spec.widths=16: must be a list of numbers"),
        (dict(input="32x32x3"), "spec.input='32x32x3'"),
        (dict(widths=[16, "32", 64]), "widths='32'"),
        (dict(depth="20"), "depth='20'"),
        (dict(repair=dict(feature_binarizer=["ste"])), "feature_binarizer="),
    ],
)
def test_wrong_dicts_are_explained(plain, message):
    with pytest.raises(UserError, match=message):
        NetworkSpec.from_dict(plain)
