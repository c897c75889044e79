"""Runs a board's top, pins and all, with models of its flash, PLL and serial host."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw.boards.bench import Bench
from bnnhw.gateware.frames import COMMAND
from bnnhw.sim.runner import HERE, primitives, simulate, write_if_changed

PLACE = "// top"  # in board_bench.v
LEDS = ("ready", "busy", "error")


@dataclass(frozen=True)
class Answer:
    """What the device sent for a frame; gateware.frames has the protocol."""

    marker: int
    logits: np.ndarray
    label: int
    cycles: int


def run_board(
    sources: Sequence[Path], *, bench: Bench, share: Path, flash: bytes, flash_offset: int,
    images: np.ndarray, classes: int, divisor: int, folder: Path, environment: Mapping[str, str],
    cycle_limit: int = 4_000_000, programs: Sequence[Path] = (),
) -> list[Answer]:  # fmt: skip
    """Returns an Answer for each image, sent after a boot from `flash` (bytes at flash_offset).

    sources : Verilog files, with the board's module `top`, or a netlist of it where its family has
        a library.
    bench : the board's. share : Yosys's share folder. programs : C++ files that the sources call.
    Raises SimulationError where the device does not get ready or does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flash.bin").write_bytes(flash)
    (folder / "answers.json").unlink(missing_ok=True)
    layout = struct.Struct(f"<B{classes}iiI")
    settings = {
        "frames": [bytes([COMMAND]).hex() + image.tobytes().hex() for image in images],
        "answer_bytes": layout.size, "divisor": divisor, "cycle_limit": cycle_limit,
    }  # fmt: skip
    text = (HERE / "board_bench.v").read_text().replace(PLACE, instance(bench))
    world = [write_if_changed(folder / "board_bench.v", text), HERE / "models" / "spi_flash.v"]
    simulate(
        sources=[*world, *primitives(bench.models, share, folder), *sources], top="board_bench",
        test_module="bnnhw.sim.board_test", folder=folder, environment=environment,
        parameters={
            "FLASH_OFFSET": flash_offset, "FLASH_BYTES": len(flash),
            "FLASH_AWAKE": int(bench.flash_awake),
        },
        variables={"BOARD_BENCH": json.dumps(settings)}, programs=programs,
    )  # fmt: skip
    answers = json.loads((folder / "answers.json").read_text())
    return [_answer(layout.unpack(bytes.fromhex(answer))) for answer in answers]


def instance(bench: Bench) -> str:
    """Returns the lines of board_bench.v with the board's top."""
    ports = ",\n".join(f"      .{port}({net})" for port, net in bench.ports.items())
    lines = [f"top dut (\n{ports}\n  );"]
    lines += [f"assign led_{led} = {'!' * (led in bench.low)}{led};" for led in LEDS]
    if bench.flash_clock:
        lines.append(f"assign clock = dut.{bench.flash_clock};")
    return "\n  ".join(lines)


def _answer(fields: tuple[int, ...]) -> Answer:
    marker, *logits, label, cycles = fields
    return Answer(marker, np.array(logits, np.int64), label, cycles)
