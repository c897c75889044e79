from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from bnnhw import golden
from bnnhw.boards import BOARDS
from bnnhw.compiler.traffic import traffic
from bnnhw.cost.activity import count_activity
from bnnhw.flow import tools
from bnnhw.flow.build import Build, Request
from bnnhw.gateware.wire import Identity, boot_image
from bnnhw.sim.board_bench import run_board
from bnnhw.sim.runner import SimulationError
from tests.sim.stand_in import stand_in

IDENTITY = Identity(height=4, width=4, channels=1, classes=3, clock_hz=24_000_000, baud=3_000_000)
PAYLOAD = np.array([0x1122334455660007, 5], "<u8").tobytes()
BOOT = boot_image(IDENTITY, PAYLOAD, bytes(16), [0, 7, 14, 2])
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 1), np.uint8)


SIMULATED = ("icebreaker", "ulx3s")  # of each family; the others are wired alike


@pytest.fixture(scope="module", params=SIMULATED)
def board(request, tmp_path_factory):
    board, folder = BOARDS[request.param], tmp_path_factory.mktemp("board")
    return board, folder, stand_in(board, BOOT, folder)


def run(board, flash):
    board, folder, verilog = board
    return run_board(
        [verilog], bench=board.bench(), share=tools.yosys_share(), flash=flash,
        flash_offset=board.flash_offset,
        images=IMAGES, classes=3, divisor=8, folder=folder / "sim",
        environment=tools.environment(), cycle_limit=20_000,
    )  # fmt: skip


def test_boots_and_answers(board):
    for answer, image in zip(run(board, BOOT.content), IMAGES, strict=True):
        assert not answer.spoiled
        assert answer.logits == tuple(int(image.sum()) + 7 * k for k in range(3))
        assert (answer.label, answer.cycles) == tuple(int(image.sum()) + 7 * k for k in (3, 4))


def test_a_bad_image_or_one_of_another_build_lights_the_error(board):
    damaged = bytearray(BOOT.content)
    damaged[10] ^= 1
    other = boot_image(replace(IDENTITY, name="other"), PAYLOAD, bytes(16), [0, 7, 14, 2])
    for flash in (bytes(damaged), other.content):
        with pytest.raises(SimulationError, match="no ready light after 20000 cycles but error"):
            run(board, flash)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A function of a board's name: a build of the bundled digits network, up to its Verilog."""

    @cache
    def build(board):
        out = tmp_path_factory.mktemp(board)
        result = Build(Request(board, "resnet8-digits", out=out, images=2), Console(quiet=True))
        result.plan_network()
        result.work.mkdir()
        result.write_verilog()
        return result

    return build


@pytest.mark.parametrize("board", SIMULATED)
def test_digits_from_flash_to_answer(digits, board):
    digits = digits(board)
    answers = run_board(
        [digits.work / "top.v"], bench=digits.board.bench(), share=tools.yosys_share(),
        flash=(digits.work / "flash.bin").read_bytes(), flash_offset=digits.board.flash_offset,
        images=digits.images, classes=10, divisor=digits.clocking.divisor,
        folder=digits.work / "sim-top", environment=tools.environment(),
    )  # fmt: skip
    expected = golden.run(digits.network, digits.images)
    for row, answer in enumerate(answers):
        assert not answer.spoiled
        assert answer.logits == tuple(expected["head.logits"][row])
        assert answer.label == expected["class"][row]
        assert 0 < answer.cycles < 100_000


def test_the_netlist_answers_too_and_its_activity_adds_up(digits):
    """The netlist's logits are the golden's, and each write that the plan knows is one of its."""
    digits = digits("icebreaker")
    digits.synthesise()
    seen = count_activity(digits.network, digits.board, digits.images, 8, digits.work)
    known = traffic(digits.plan)
    assert seen.spram_writes == 4 * sum(known["writes"].values())
    assert seen.spram == 4 * seen.cycles  # a read in every other cycle
    assert seen.flip_flops == digits.cells["ff"]
    sent, answered = 10 * 8 * (1 + 64), 10 * 8 * (1 + 12 * 4)
    assert seen.cycles > sent + answered
    reads = digits.cells["ebr"] * seen.cycles
    assert reads < seen.ebr < 1.2 * reads
    assert seen.loads > 100 * seen.cycles and seen.multiplier_inputs > 0
