"""Plans refuse the methods that the engine has no part for, and no others."""

from __future__ import annotations

import pytest

from bnnhw.errors import UserError
from bnnhw.plan import make_plan
from bnnhw.repair import CATEGORIES, TOPOLOGY
from bnnhw.spec import NetworkSpec, Repair
from boards.icebreaker import BOARD
from tests.random_networks import random_network

METHODS_WITHOUT_PART = [
    ("binary_sets", "adabin"),
    ("scaling", "spatial"),
    ("ensemble", "weights-2"),
    ("ensemble", "weights-3"),
    ("ensemble", "features-2"),
    ("ensemble", "features-3"),
    ("ensemble", "group-2"),
    ("activation", "prelu"),
    ("activation", "rprelu"),
    ("activation", "maxout"),
    ("squeeze_excitation", "se"),
    ("downsample", "avgpool-duplicate"),
    ("downsample", "conv1x1-binary"),
    ("downsample", "conv1x1-8bit"),
    ("stem", "thermometer"),
]


@pytest.mark.parametrize(("name", "value"), METHODS_WITHOUT_PART)
def test_methods_without_a_part_are_refused(name, value):
    spec = NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=Repair(**{name: value}))
    with pytest.raises(UserError) as raised:
        make_plan(random_network(spec), BOARD)
    message = str(raised.value)
    assert message.startswith(f"{name}={value}: the engine has no such part yet; use {name}=")
    assert "\n" not in message


def test_every_topology_method_either_has_a_part_or_is_refused():
    refused = set(METHODS_WITHOUT_PART)
    for category in CATEGORIES:
        for value in category.values:
            if category.cost == TOPOLOGY and (category.name, value) not in refused:
                repair = Repair(**{category.name: value})
                spec = NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=repair)
                assert make_plan(random_network(spec), BOARD).steps[-1].kind == "head"
