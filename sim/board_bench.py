"""Runs a board's top, pins and all, with models of its flash, PLL and serial host."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw.gateware.frames import COMMAND
from bnnhw.sim.runner import HERE, primitives, simulate


@dataclass(frozen=True)
class Answer:
    """What the device sent for a frame; gateware.frames has the protocol."""

    marker: int
    logits: np.ndarray
    label: int
    cycles: int


def run_board(
    sources, *, board, library, flash, flash_offset, images, classes, divisor, folder, environment,
    cycle_limit=4_000_000, programs=(),
):  # fmt: skip
    """Boot from `flash` (bytes at flash_offset), send images, return an Answer for each.

    sources : Verilog files, with module `top` of board `icebreaker` or `ulx3s`; of the latter no
    netlist, for there are no models of its memories. library : iCE40's cells_sim.v of Yosys.
    programs : C++ files that the sources call.
    Raises SimulationError where the device does not get ready or does not answer.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flash.bin").write_bytes(flash)
    (folder / "answers.json").unlink(missing_ok=True)
    layout = struct.Struct(f"<B{classes}iiI")
    settings = {
        "frames": [bytes([COMMAND]).hex() + image.tobytes().hex() for image in images],
        "answer_bytes": layout.size, "divisor": divisor, "cycle_limit": cycle_limit,
    }  # fmt: skip
    cells = primitives(library, folder / "cells.v", replaced=("SB_PLL40_PAD", "SB_IO"))
    models = dict(icebreaker=[HERE / "models" / "ice40.v", cells], ulx3s=[HERE / "models/ecp5.v"])
    bench = [HERE / f"{board}_bench.v", HERE / "models" / "spi_flash.v"]
    simulate(
        sources=[*bench, *models[board], *sources], top="board_bench",
        test_module="bnnhw.sim.board_test", folder=folder, environment=environment,
        parameters={"FLASH_OFFSET": flash_offset, "FLASH_BYTES": len(flash)},
        variables={"BOARD_BENCH": json.dumps(settings)}, programs=programs,
    )  # fmt: skip
    answers = json.loads((folder / "answers.json").read_text())
    return [_answer(layout.unpack(bytes.fromhex(answer))) for answer in answers]


def _answer(fields):
    marker, *logits, label, cycles = fields
    return Answer(marker, np.array(logits, np.int64), label, cycles)
