"""Plans refuse the methods that the engine has no part for, and no others."""

from __future__ import annotations

import pytest

from bnnhw.errors import UserError
from bnnhw.plan import RUNS, make_plan
from bnnhw.repair import CATEGORIES, TOPOLOGY
from bnnhw.spec import NetworkSpec, Repair
from boards.icebreaker import BOARD
from tests.random_networks import random_network

METHODS = [
    (category.name, value)
    for category in CATEGORIES
    for value in category.values
    if category.cost == TOPOLOGY
]


@pytest.mark.parametrize(("name", "value"), METHODS)
def test_a_topology_method_has_its_part_or_is_refused_by_name(name, value):
    spec = NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=Repair(**{name: value}))
    network = random_network(spec)
    if value in RUNS.get(name, (value,)):
        assert make_plan(network, BOARD).steps[-1].kind == "head"
    else:
        with pytest.raises(UserError) as raised:
            make_plan(network, BOARD)
        message = str(raised.value)
        assert message.startswith(f"{name}={value}: the engine has no such part yet; use {name}=")
        assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), [("squeeze_excitation", "se")])
def test_parts_that_do_not_exist_are_refused(name, value):
    assert value not in RUNS[name]
