"""Networks as tuples of layers: what makes one, what follows from it, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnnhw.errors import UserError
from bnnhw.network.integer import structure
from bnnhw.network.layers import Layer, residual_layers
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from tests.layer_lists import LAYERS, MIXED


@pytest.mark.parametrize("double", [False, True])
def test_the_formula_is_one_way_to_make_layers(double):
    repair = Repair(double_residual=double)
    formula = NetworkSpec(depth=14, widths=(4, 8, 16), repair=repair)
    layers = residual_layers((4, 8, 16), (2, 2, 2), double)
    listed = NetworkSpec(layers=layers, repair=repair)
    assert listed.convolutions() == formula.convolutions()
    assert (listed.depth, listed.widths, listed.blocks) == (14, (4, 8, 16), (2, 2, 2))


@pytest.mark.parametrize("stages", [(2, 2, 2, 2), (3, 4, 6, 3)])
def test_stages_have_their_own_lengths(stages):
    spec = NetworkSpec(stages=stages, widths=(4, 8, 16, 32))
    assert spec.depth == 2 * sum(stages) + 2 and spec.blocks == stages
    shapes = spec.convolutions()
    assert tuple(sum(s.stage == k for s in shapes) // 2 for k in range(4)) == stages
    assert [s.name for s in shapes if s.stride == 2] == [f"stage{k}.0.conv1" for k in (1, 2, 3)]
    assert NetworkSpec.from_dict(spec.to_dict()) == spec


def test_layers_have_their_own_methods_and_shapes():
    shapes = {shape.name: shape for shape in MIXED.convolutions()}
    assert MIXED.widths == (6, 8, 10) and MIXED.stem_channels == 4 and MIXED.depth == 8
    assert [(s.height, s.width, s.out_height) for s in shapes.values()] == [
        (9, 8, 9), (9, 8, 9), (9, 8, 5), (5, 4, 5), (5, 4, 3), (3, 2, 3),
    ]  # fmt: skip
    third, sixth = shapes["third"], shapes["sixth"]
    assert (third.shortcut_stride, third.shortcut_channels, third.shortcut_fraction) == (2, 4, 4)
    assert (sixth.shortcut_stride, sixth.shortcut_channels, sixth.stride) == (2, 8, 1)
    assert (sixth.fraction, sixth.shortcut_fraction) == (5, 3)
    parts = {name: structure(shape, MIXED.repair) for name, shape in shapes.items()}
    assert [p.gate for p in parts.values()] == [n == "third" for n in shapes]
    assert [p.window_sum for p in parts.values()] == [n == "fourth" for n in shapes]
    assert parts["sixth"].shortcut and parts["sixth"].spatial and parts["fourth"].before
    assert NetworkSpec.from_dict(MIXED.to_dict()) == MIXED


@pytest.mark.parametrize(
    ("place", "change", "fault"),
    [
        (1, dict(in_channels=6), "second.in_channels=6: first leaves 4"),
        (1, dict(out_channels=5), "second.out_channels=5: must be even"),
        (3, dict(out_channels=4), "fourth: must not have fewer channels than the layer before"),
        (2, dict(stride=3), "third.stride=3: must be a whole number from 1 to 2"),
        (2, dict(stage=2), "third.stage=2: must be a whole number from 0 to 1"),
        (5, dict(shortcut=False), "sixth: the last layer must have a shortcut"),
        (5, dict(stride=2), "sixth: its shortcut would be of stride 4, above 2"),
        (3, dict(name="first"), "first: a layer's name must be its own"),
        (0, dict(repair=Repair(ensemble="group-2")), "first.repair: ensemble='group-2', the netw"),
    ],
)
def test_layers_that_do_not_follow_are_named(place, change, fault):
    layers = [*LAYERS]
    layers[place] = replace(layers[place], **change)
    with pytest.raises(UserError, match=fault):
        replace(MIXED, layers=tuple(layers), input=(16, 16, 2))


def test_other_faults():
    with pytest.raises(UserError, match=r"stages=\(2, 2\): give one for each of widths"):
        NetworkSpec(stages=(2, 2))
    with pytest.raises(UserError, match=r"stages=\(1,\): layers say it all"):
        NetworkSpec(stages=(1,), layers=(Layer("one", 4, 4),))
    with pytest.raises(UserError, match="spec.layers: must be a list"):
        NetworkSpec.from_dict(dict(layers=3))
    with pytest.raises(UserError, match="each needs name, in_channels and out_channels"):
        NetworkSpec.from_dict(dict(layers=[dict(name="one")]))
    with pytest.raises(UserError, match="input height=4: must be a whole number from 8"):
        replace(MIXED, input=(4, 8, 2))
