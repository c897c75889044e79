"""A plan's hardware as files: the engine's Verilog for the proof, the board's top for the tools."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from bnnhw.boards.numbers import baud_divisor
from bnnhw.boards.support import BoardSupport, Top
from bnnhw.compiler.plan import Plan
from bnnhw.errors import UserError
from bnnhw.flow.boot import make_boot_image, stream_start
from bnnhw.flow.verilog import rtlil_to_verilog, to_verilog
from bnnhw.gateware.engine import Engine
from bnnhw.gateware.wire import BootImage
from bnnhw.jobs.files import replacing, write_text


@dataclass(frozen=True)
class Clocking:
    """What a design runs at: its clock, and the serial port's baud and cycles a bit."""

    hz: float
    baud: int
    divisor: int

    @property
    def byte_cycles(self) -> int:
        """Cycles in which the serial port brings a byte: 8 bits, start and stop."""
        return 10 * self.divisor


def clocking(board: BoardSupport, wanted_hz: float | None = None) -> Clocking:
    """Returns the nearest clock that the board's PLL makes without passing `wanted_hz`, and its
    port.

    wanted_hz : None is the board's own.
    Raises UserError where the PLL or the port cannot.
    """
    try:
        made = float(board.pll(board.clock_hz if wanted_hz is None else wanted_hz).output_hz)
        return Clocking(made, *baud_divisor(made, board.max_baud))
    except ValueError as fault:
        raise UserError(f"--clock: {fault}") from None


def make_top(
    plan: Plan, board: BoardSupport, boot: BootImage, *, clock_hz: float, bound: bool = True
) -> Top:
    """Returns the board's top with the plan's engine, which takes this boot image of the plan.

    bound : as the boot image was made.
    """
    spec, boot_length, check_start = plan.network.spec, len(boot.payload), boot.check_start
    if plan.words is not None:
        boot_length, check_start = plan.words.nibbles, stream_start(plan.words, bound=bound)
    return board.top(
        Engine(plan.parameters, image_base=plan.image_base), clock_hz=clock_hz,
        frame_bytes=math.prod(spec.input), n_results=spec.classes + 2, boot_length=boot_length,
        memories=plan.memories, check_start=check_start,
    )  # fmt: skip


def write_files(
    plan: Plan,
    board: BoardSupport,
    clock: Clocking,
    folder: Path,
    *,
    name: str,
    step: float,
    bound: bool,
) -> Path:
    """Write engine.v, top.il, top.v, the pins and flash.bin. Returns the path of engine.v.

    name, step, bound : as bnnhw.flow.boot has them.
    engine.v and top.v are kept where an earlier call has made them of the same hardware.
    """
    boot = make_boot_image(
        plan, clock_hz=clock.hz, baud=clock.baud, name=name, step=step, bound=bound
    )
    with replacing(folder / "flash.bin") as partial:
        partial.write_bytes(boot.content)
    engine = to_verilog(Engine(plan.parameters, image_base=plan.image_base), "engine", folder)
    files = board.prepare(make_top(plan, board, boot, clock_hz=clock.hz, bound=bound))
    rtlil_to_verilog(files.pop("top.il"), "top", folder)
    for name, text in files.items():
        write_text(folder / name, text)
    return engine
