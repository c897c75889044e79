"""Plans know every method that adds to the hardware, and refuse one that has no part."""

from __future__ import annotations

import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import RUNS, make_plan
from bnnhw.errors import UserError
from bnnhw.network.repair import CATEGORIES, TOPOLOGY
from bnnhw.network.spec import NetworkSpec, Repair
from tests.random_networks import random_network

METHODS = [
    (category.name, value)
    for category in CATEGORIES
    for value in category.values
    if category.cost == TOPOLOGY
]


def network_of(name: str, value: str):
    repair = Repair(**{name: value})
    return random_network(NetworkSpec(depth=6, widths=(4, 6), input=(4, 4, 1), repair=repair))


@pytest.mark.parametrize(("name", "value"), METHODS)
def test_every_topology_method_has_its_part(name, value):
    assert value in RUNS.get(name, (value,))
    assert make_plan(network_of(name, value), BOARD).steps[-1].kind == "head"


def test_a_method_without_a_part_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(RUNS, "stem", ("8-bit",))
    with pytest.raises(UserError) as raised:
        make_plan(network_of("stem", "thermometer"), BOARD)
    assert str(raised.value) == (
        "stem=thermometer: the engine has no such part yet; use stem=8-bit"
    )
