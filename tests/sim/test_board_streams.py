"""A board's top whose program and weights come from its quad flash while it works."""

import math

import numpy as np
import pytest

from bnnhw import golden
from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.flow import tools
from bnnhw.flow.boot import make_boot_image
from bnnhw.flow.design import make_top
from bnnhw.flow.verilog import rtlil_to_verilog
from bnnhw.gateware.wire import header_bytes
from bnnhw.lowering.lower import lower
from bnnhw.nn.untrained import untrained
from bnnhw.sim.board_bench import run_board
from bnnhw.sim.runner import SimulationError
from tests.sim.test_networks import NETWORKS

DIVISOR = 8
FRAMES = 3


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """The plan, the top's Verilog in a folder, and the flash's content."""
    network = lower(untrained(NETWORKS["stages of 1 and 2 blocks"], seed=1))
    plan, folder = make_plan(network, BOARD, streams=True), tmp_path_factory.mktemp("streams")
    boot = make_boot_image(plan, clock_hz=24_000_000, baud=3_000_000)
    top = make_top(plan, BOARD, boot, clock_hz=24_000_000)
    return plan, rtlil_to_verilog(BOARD.prepare(top)["top.il"], "top", folder), boot.content


def run(streamed, frames=FRAMES, **faults):
    plan, verilog, flash = streamed
    spec = plan.network.spec
    images = np.random.default_rng(3).integers(0, 256, (frames, *spec.input), np.uint8)
    answers = run_board(
        [verilog], bench=BOARD.bench(streams=True), share=tools.yosys_share(), flash=flash,
        flash_offset=BOARD.flash_offset, images=images, classes=spec.classes, divisor=DIVISOR,
        folder=verilog.parent / "sim", environment=tools.environment(), cycle_limit=400_000,
        faults=faults,
    )  # fmt: skip
    return answers, golden.run(plan.network, images)


def test_answers_frame_after_frame(streamed):
    answers, expected = run(streamed)
    assert len(answers) == FRAMES
    for index, answer in enumerate(answers):
        assert not answer.spoiled
        assert list(answer.logits) == expected["head.logits"][index].tolist()
        assert answer.label == expected["class"][index]


def in_stream(plan, bit):
    """The number of a bit of the stream in the flash's content."""
    spec = plan.network.spec
    return 8 * header_bytes(math.prod(spec.input), spec.classes) + bit


@pytest.mark.parametrize("fault", ["missing", "stuck", "flipped"])
def test_a_flash_that_is_wrong_at_the_start_lights_the_error(streamed, fault):
    faults = dict(
        missing=dict(missing=1), stuck=dict(stuck=2),
        flipped=dict(flip_read=1, flip_bit=in_stream(streamed[0], 1003)),
    )  # fmt: skip
    with pytest.raises(SimulationError, match="no ready light after 400000 cycles but error"):
        run(streamed, **faults[fault])


@pytest.mark.parametrize("part", ["words", "check sum"])
def test_a_bit_that_flips_on_the_way_spoils_the_answer(streamed, part):
    """Of the second frame: the first read is for the check sum alone."""
    plan = streamed[0]
    bit = in_stream(plan, 5000 if part == "words" else 4 * plan.words.nibbles + 9)
    (first, second), expected = run(streamed, frames=2, flip_read=3, flip_bit=bit)
    assert not first.spoiled and list(first.logits) == expected["head.logits"][0].tolist()
    assert second.spoiled and not any(second.logits)
