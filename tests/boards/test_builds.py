"""The digits network on boards, down to a placed design: one here, all with `-m long`."""

import pytest

import bnnhw
from bnnhw.boards import BOARDS

SHORT = "colorlight_i9"  # the suite builds for the iCEBreaker, too: tests/flow/test_stages.py


@pytest.mark.parametrize(
    "name", [SHORT, *(pytest.param(n, marks=pytest.mark.long) for n in BOARDS if n != SHORT)]
)
def test_digits_fit_and_meet_the_clock(name, tmp_path):
    board = bnnhw.board(name)
    pe = 1 if name == SHORT else None  # the smallest array routes soonest
    plan = bnnhw.make_plan(bnnhw.lower(bnnhw.load("resnet8-digits")), board, pe=pe)
    built = bnnhw.implement(bnnhw.write_design(plan, board, tmp_path))
    assert built.placed.met and built.bitstream.stat().st_size < board.flash_offset
