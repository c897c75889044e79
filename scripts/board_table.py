"""Builds the digits network for boards, without the proof, and prints docs/boards.md's table.

Usage: python scripts/board_table.py [BOARD ...]; all boards if none is named. What is built is in
build/boards/; a board whose row is there already is not built again.
"""

import json
import sys
from pathlib import Path

import bnnhw
from bnnhw.boards import BOARDS
from bnnhw.compiler.plan import DoesNotFit
from bnnhw.errors import UserError

OUT = Path("build/boards")


def row(name: str) -> dict[str, str]:
    """Returns the columns of a board's row."""
    board = bnnhw.board(name)
    try:
        plan = bnnhw.make_plan(bnnhw.lower(bnnhw.load("resnet8-digits")), board)
        design = bnnhw.write_design(plan, board, OUT / name)
        placed = bnnhw.implement(design).placed
    except (DoesNotFit, UserError) as fault:
        return dict(board=name, device=board.device, fault=" ".join(str(fault).split()))
    logic = "lc" if "lc" in board.budget else "lut"
    used = placed.utilisation
    return dict(
        board=name,
        device=board.device,
        logic=f"{used[logic]:,} of {board.budget[logic]:,} {logic.upper()}",
        ebr=f"{used['ebr']} of {board.budget['ebr']}",
        dsp=f"{used['dsp']} of {board.budget['dsp']}",
        clock=f"{placed.fmax_mhz:.1f} MHz, {placed.clock_mhz:.1f} MHz",
        seed=str(placed.seed),
    )


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or BOARDS:
        kept = OUT / f"{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(row(name)))
        print("|", " | ".join(json.loads(kept.read_text()).values()), "|", flush=True)


if __name__ == "__main__":
    main()
