"""Plans whose program and weights are a stream of words."""

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as OTHER
from bnnhw.compiler.plan import DoesNotFit, make_plan
from bnnhw.compiler.program import Program
from bnnhw.compiler.stream import short_words
from bnnhw.compiler.traffic import traffic
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import stream_nibbles
from bnnhw.gateware.program import Load
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn.untrained import untrained

SMALL = NetworkSpec(8, (16, 32, 48), (8, 8, 3), 5, Repair(activation="prelu"))
DEEP = NetworkSpec(56, repair=Repair(stem="thermometer"))


@pytest.fixture(scope="module")
def small():
    return lower(untrained(SMALL))


def test_words_are_loads_weights_and_descriptors_in_their_order(small):
    """What the first entry of a channel does not hold has 48 bits; nothing is in the memory."""
    resident, plan = make_plan(small, BOARD), make_plan(small, BOARD, streams=True)
    assert not len(plan.image)
    at, stream = 1, plan.words
    load = Load.from_bits(int(stream.words[0]))
    for index, (step, before) in enumerate(zip(plan.steps, resident.steps, strict=True)):
        known = Load.from_bits(
            int(resident.image[0]) if index == 0 else resident.steps[index - 1].words[4]
        )
        assert load.words == known.words
        words = resident.image[known.weights :][: known.words]
        got, short = (part[at : at + load.words] for part in (stream.words, stream.short))
        mask = np.where(short, np.uint64((1 << 48) - 1), np.uint64((1 << 64) - 1))
        assert (got == words & mask).all()
        at += load.words
        assert stream.words[at : at + 5].tolist() == list(step.words)
        assert not stream.short[at : at + 5].any()
        assert step.name == before.name
        at += 5
        load = Load.from_bits(step.words[4])
    assert at == len(stream.words)
    assert stream.nibbles == stream_nibbles(stream.short) == 16 * at - 4 * stream.short.sum()


def test_short_words_are_those_of_a_channels_later_folds(small):
    program = Program(small, streams=True)
    (task,) = (t for t in program.schedule.tasks if t.name == "stage2.0.conv1")
    pattern = [False] * 4 + [True] * 3  # two folds of three words; slopes in the first
    assert short_words(task).tolist() == pattern * 48


def test_a_network_that_does_not_fit_the_memory_is_streamed_where_that_can_be():
    network = lower(untrained(DEEP))
    with pytest.raises(DoesNotFit, match="memory"):
        make_plan(network, BOARD)
    plan = make_plan(network, BOARD, streams=None)
    assert plan.parameters.streams and plan.words is not None and 0.6 < plan.link_share < 1
    assert plan.cycles >= plan.words.nibbles
    reads = traffic(plan)["reads"]
    assert "program" not in reads and "weights" not in reads and reads["features"]
    assert not OTHER.streams and make_plan(network, OTHER, streams=None).words is None


def test_one_that_fits_is_not_unless_asked_for(small):
    assert make_plan(small, BOARD, streams=None).words is None
    assert make_plan(small, BOARD, streams=True).words is not None


def test_what_needs_its_weights_in_memory_is_refused_by_name():
    gated = lower(
        untrained(NetworkSpec(8, (16, 16, 32), (8, 8, 1), 4, Repair(squeeze_excitation="se")))
    )
    with pytest.raises(
        UserError, match="stage0.0.conv1: weights cannot be streamed beside its gate"
    ):
        make_plan(gated, BOARD, streams=True)
