"""Runs a board's top, pins and all, with models of its flash, PLL and serial host."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bnnhw.boards.bench import Bench
from bnnhw.host.protocol import TAGS, Answer, Decoder, infer, reply_bytes
from bnnhw.sim.runner import HERE, primitives, simulate, write_if_changed

PLACE = "// top"  # in board_bench.v
LEDS = ("ready", "busy", "error")


def run_board(
    sources: Sequence[Path], *, bench: Bench, share: Path, flash: bytes, flash_offset: int,
    images: np.ndarray, classes: int, divisor: int, folder: Path, environment: Mapping[str, str],
    cycle_limit: int = 4_000_000, programs: Sequence[Path] = (),
    faults: Mapping[str, int] | None = None,
) -> list[Answer]:  # fmt: skip
    """Returns an Answer for each image, sent after a boot from `flash` (bytes at flash_offset).

    sources : Verilog files, with the board's module `top`, or a netlist of it where its family has
        a library.
    faults : of a quad flash, as sim/models/qspi_flash.v has them.
    bench : the board's. share : Yosys's share folder. programs : C++ files that the sources call.
    Raises SimulationError where the device does not get ready or does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flash.bin").write_bytes(flash)
    (folder / "answers.json").unlink(missing_ok=True)
    settings = {
        "frames": [infer(image.tobytes(), at % TAGS).hex() for at, image in enumerate(images)],
        "answer_bytes": reply_bytes(classes), "divisor": divisor, "cycle_limit": cycle_limit,
    }  # fmt: skip
    simulate(
        sources=[*world(bench, share, folder), *sources], top="board_bench",
        test_module="bnnhw.sim.board_test", folder=folder, environment=environment,
        parameters={"FLASH_OFFSET": flash_offset, "FLASH_BYTES": len(flash)},
        plusargs=[f"+{name}={value}" for name, value in (faults or {}).items()],
        variables={"BOARD_BENCH": json.dumps(settings)}, programs=programs,
    )  # fmt: skip
    received = "".join(json.loads((folder / "answers.json").read_text()))
    messages = Decoder(classes).feed(bytes.fromhex(received))
    return [message for message in messages if isinstance(message, Answer)]


def world(bench: Bench, share: Path, folder: Path) -> list[Path]:
    """Returns the Verilog files around a board's top, those that are made in `folder`."""
    text = (HERE / "board_bench.v").read_text().replace(PLACE, instance(bench))
    model = "qspi_flash.v" if bench.quad else "spi_flash.v"
    if bench.quad:
        text = "`define QUAD_FLASH\n" + text
    made = write_if_changed(folder / "board_bench.v", text)
    return [made, HERE / "models" / model, *primitives(bench.models, share, folder)]


def instance(bench: Bench) -> str:
    """Returns the lines of board_bench.v with the board's top."""
    ports = ",\n".join(f"      .{port}({net})" for port, net in bench.ports.items())
    lines = [f"top dut (\n{ports}\n  );"]
    lines += [f"assign led_{led} = {'!' * (led in bench.low)}{led};" for led in LEDS]
    if bench.flash_clock:
        lines.append(f"assign clock = dut.{bench.flash_clock};")
    return "\n  ".join(lines)
