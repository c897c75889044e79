"""Maps that share memory: never two at once, and each is read where it was written."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.allocation import needed, share
from bnnhw.compiler.plan import DoesNotFit, make_plan
from bnnhw.compiler.program import Program
from bnnhw.network.spec import NetworkSpec, Repair
from tests.plans import network_of, regions

MANY = {
    "averages, maxout": Repair("rsign", activation="maxout", downsample="avgpool-duplicate"),
    "features, before the addition": Repair(
        double_residual=False, ensemble="features-2", activation="prelu",
        activation_position="before-add",
    ),
    "gates, 8-bit shortcuts": Repair(squeeze_excitation="se", downsample="conv1x1-8bit"),
    "spatial factors, binary shortcuts": Repair(
        "rsign", scaling="spatial", downsample="conv1x1-binary"
    ),
}  # fmt: skip


def test_the_largest_comes_first_and_the_others_beside_what_is_needed_with_them():
    sizes = dict(a=10, b=30, c=20, d=10, e=5)
    times = dict(a=range(0, 4), b=range(2, 6), c=range(5, 9), d=range(6, 9), e=range(0, 9))
    assert share(sizes, times, 100) == dict(
        b=(100, 30), c=(130, 20), a=(130, 10), d=(100, 10), e=(150, 5)
    )


@pytest.fixture(params=MANY, scope="module")
def network(request):
    return network_of(NetworkSpec(8, (16, 32, 34), (18, 20, 3), 5, MANY[request.param]))


@pytest.mark.parametrize("strips", [1, 2])
def test_no_two_maps_that_are_needed_at_once_share_a_word(network, strips):
    program = Program(network, strips=strips, shared=True)
    times = needed(program.schedule.tasks)
    always = range(len(program.schedule.tasks))
    shares = 0
    for one, other in combinations(program.places, 2):
        spans = [range(at, at + size) for at, size in (program.places[one], program.places[other])]
        together = max(span.start for span in spans) < min(span.stop for span in spans)
        at_once = set(times.get(one, always)) & set(times.get(other, always))
        assert not (together and at_once), (one, other)
        shares += together
    assert shares
    assert program.end <= Program(network, strips=strips).end
    assert min(first for first, _ in program.places.values()) == program.weights_end


def test_a_map_is_read_under_the_name_that_it_was_written_under(network):
    plain, shared = (Program(network, shared=on).schedule.tasks for on in (False, True))
    written = {}
    for before, after in zip(plain, shared, strict=True):
        for name in ("features", "operand", "adds"):
            place = getattr(before, name)
            assert getattr(after, name) == written.get(place, place)
        for name in ("bits", "residual"):
            if place := getattr(before, name):
                written[place] = getattr(after, name)
                assert written[place] == f"{place}, {'x'.join(map(str, before.size))}"


def test_a_network_that_fits_shares_nothing_and_one_that_fits_no_more_does():
    repair = MANY["averages, maxout"]  # whose second place is for the later stages alone
    network = network_of(NetworkSpec(8, (16, 32, 34), (18, 20, 3), 5, repair))
    whole = make_plan(network, BOARD)
    assert not any("x" in name for name in regions(whole))
    words = whole.resources[0].used
    plan = make_plan(network, replace(BOARD, memory_words=words - 1))
    assert any("x" in name for name in regions(plan))
    least = plan.resources[0].used
    assert least == max(place.stop for place in regions(plan).values()) < words
    make_plan(network, replace(BOARD, memory_words=least))
    with pytest.raises(DoesNotFit):
        make_plan(network, replace(BOARD, memory_words=least - 1))
