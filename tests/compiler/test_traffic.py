"""Accesses to the large memory, worked out by hand for two convolutions in each of three stages of
16, 32 and 64 channels: 16, 4 and 1 blocks of 2 x 2 pixels. The second and third stage start with a
step that moves the stream; four classes at a time make three rounds in the head.
"""

from __future__ import annotations

from dataclasses import replace

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as LARGER
from bnnhw.compiler import plan
from bnnhw.compiler.traffic import traffic
from bnnhw.network.repair import BASELINE
from tests.cost.measuring import DIGITS
from tests.random_networks import random_network


def test_traffic_of_single_residuals():
    counted = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    entries_ = 4 * 9 + 16 + 16 + 32 + 32 + 2 * 32 + 64 + 2 * 64 + 4 * 64 + 3 * (64 + 1)
    assert counted["reads"] == dict(
        program=5 * 13,
        weights=3 * entries_,
        image=(3 * 8 - 2) * (3 * 8 - 2) * 4,
        features=16 + 16 + 16 + 16 + 4 * 2 + 4 + 4 * 2 + 2 * 4,  # the last in two tiles
        residuals=16 * 8 + 16 * 8 + 4 * 16 + 4 * 16 + 1 * 32 + 3 * 32,
    )
    assert counted["writes"] == dict(
        image=64,
        features=64 + 16 + 16 + 16 * 2 + 4 * 2 + 4 * 4,
        residuals=64 * 8 + 16 * 8 + 16 * 16 + 4 * 16 + 4 * 32 + 1 * 32,
    )


def test_traffic_of_passes_is_of_wide_words_and_operands():
    narrow = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    spec = replace(DIGITS, repair=replace(BASELINE, activation="prelu"))
    wide = traffic(plan.make_plan(random_network(spec), BOARD))
    scaled = 16 * 16 + 4 * 32 + 1 * 64  # an activation reads and writes a block's every channel
    for way in ("reads", "writes"):
        assert wide[way]["residuals"] == 2 * narrow[way]["residuals"] + scaled
    tile = 4  # words that the last convolution's second tile reads again, without passes
    assert wide["reads"]["features"] == narrow["reads"]["features"] - tile + 16 + 4 + 1
    assert wide["reads"]["program"] == 5 * 15


def test_traffic_of_spatial_factors_is_a_word_a_block():
    narrow = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    spec = replace(DIGITS, repair=replace(BASELINE, scaling="spatial"))
    scaled = traffic(plan.make_plan(random_network(spec), BOARD))
    tile = 4  # as above
    assert scaled["reads"]["features"] == narrow["reads"]["features"] - tile + 2 * (16 + 4 + 1)


def test_traffic_of_8_bit_shortcuts_is_a_block_for_each_four_outputs():
    spec = replace(DIGITS, repair=replace(BASELINE, downsample="conv1x1-8bit"))
    counted = traffic(plan.make_plan(random_network(spec), BOARD))
    blocks = 16 * 8 * 16 + 4 * 16 * 32  # positions, fours of outputs, inputs
    plain = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    moved = 16 * 16 + 4 * 32  # what moving the stream as it is reads, in wide words
    assert counted["reads"]["residuals"] == 2 * plain["reads"]["residuals"] - moved + blocks
    assert counted["writes"]["residuals"] == 2 * plain["writes"]["residuals"]


def test_traffic_of_a_thermometer_is_of_its_bits():
    spec = replace(DIGITS, repair=replace(BASELINE, stem="thermometer"))
    counted = traffic(plan.make_plan(random_network(replace(spec, input=(8, 38, 3))), BOARD))
    groups = 3  # of each pixel: one of the six bits of each colour
    assert counted["writes"]["image"] == 8 * 38 * groups
    assert counted["reads"]["image"] == 4 * 19 * groups  # and 2 beside: 21 * 3 <= 64
    wider = traffic(plan.make_plan(random_network(replace(spec, input=(8, 46, 3))), BOARD))
    assert wider["reads"]["image"] == 4 * 2 * (12 + 2) * groups  # two strips and what is beside


def test_traffic_of_gates_is_their_layers_maps_numbers_and_weights():
    """In each stage one convolution of 16, 32 and 64 channels with 4, 8 and 16 hidden numbers."""
    wide = replace(BASELINE, activation="prelu", activation_position="before-add")
    before = traffic(plan.make_plan(random_network(replace(DIGITS, repair=wide)), BOARD))
    gated = replace(wide, squeeze_excitation="se")
    counted = traffic(plan.make_plan(random_network(replace(DIGITS, repair=gated)), BOARD))
    layers = 16 * 16 * 1 + 4 * 32 * 2 + 1 * 64 * 4 + 16 * (4 + 8 + 16)  # fours of outputs
    scaled = 16 * 16 + 4 * 32 + 1 * 64  # the activation's numbers lie in memory once more
    reads, writes = (counted[way]["residuals"] - before[way]["residuals"]
                     for way in ("reads", "writes"))  # fmt: skip
    assert reads == layers + scaled
    assert writes == scaled + 4 + 8 + 16 + 16 + 32 + 64


def test_traffic_of_channels_in_parallel():
    """Of the stream's own memory words are eight times as many channels of 8 bits; five steps of
    ten convolutions, none of them in tiles, and of weights nothing: they are resident."""
    network = random_network(DIGITS)
    one, eight = (traffic(plan.make_plan(network, LARGER, pe=pe)) for pe in (1, 8))
    assert "weights" not in eight["reads"] or not eight["reads"]["weights"]
    assert eight["reads"]["image"] * 4 == one["reads"]["image"]  # 16 sums in place of 4
    assert eight["writes"]["features"] == one["writes"]["features"]
    assert eight["writes"]["residuals"] * 8 == one["writes"]["residuals"]
    head = 1 * 64 // 2  # words of the head's map, three times, or once for all of its classes
    assert (eight["reads"]["residuals"] - head // 8) * 8 == one["reads"]["residuals"] - 3 * head
