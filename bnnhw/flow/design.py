"""A plan's hardware as files: the engine's Verilog for the proof, the board's top for the tools."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

from bnnhw.boards import icebreaker, ulx3s
from bnnhw.compiler.plan import Plan
from bnnhw.flow.verilog import rtlil_to_verilog, to_verilog
from bnnhw.gateware.engine import Engine
from bnnhw.gateware.flash import boot_image
from bnnhw.network.spec import NetworkSpec

BOARDS = {"icebreaker": icebreaker, "ulx3s": ulx3s}  # the smallest first


def clock_hz(board: str) -> float:
    """What the board's PLL makes of the clock that it runs at unless asked otherwise."""
    module = BOARDS[board]
    return float(module.pll(module.BOARD.clock_hz).output_hz)


def write_design(
    plan: Plan, spec: NetworkSpec, board: ModuleType, clock_hz: float, folder: Path
) -> Path:
    """Write engine.v, top.il, top.v, the pins and flash.bin; returns the path of engine.v.

    board : a module of `BOARDS`. Files whose content would not change are left as they are.
    """
    payload = plan.image.astype("<u8").tobytes()
    (folder / "flash.bin").write_bytes(boot_image(payload))
    engine = to_verilog(Engine(plan.parameters, image_base=plan.image_base), "engine", folder)
    top = board.Top(
        Engine(plan.parameters, image_base=plan.image_base),
        frame_bytes=math.prod(spec.input),
        n_results=spec.classes + 2,
        boot_length=len(payload),
        clock_hz=clock_hz,
    )
    files = board.prepare(top)
    rtlil_to_verilog(files.pop("top.il"), "top", folder)
    for name, text in files.items():
        (folder / name).write_text(text)
    return engine
