"""Prints the hashes of what is generated for every bundled model on every board.

    python scripts/hash_designs.py

A line is model, board, file and the first 16 digits of its SHA-256. Two revisions whose lines are
equal make the same hardware; no tool but Yosys's Verilog writer is run.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import bnnhw
from bnnhw.boards import BOARDS
from bnnhw.nn import checkpoint

BOARD_NAMES = ("icebreaker", "ulx3s")  # one of each family
FILES = ("engine.v", "top.v", "flash.bin")


def main() -> None:
    """Print the lines."""
    for model in checkpoint.bundled_names():
        network = bnnhw.lower(bnnhw.load(model))
        for name in BOARD_NAMES:
            board = BOARDS[name]
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                bnnhw.write_design(bnnhw.make_plan(network, board), board, folder)
                for file in FILES:
                    digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()[:16]
                    print(model, name, file, digest, flush=True)


if __name__ == "__main__":
    main()
