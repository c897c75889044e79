"""A plan's hardware as files: the engine's Verilog for the proof, the board's top for the tools."""

from __future__ import annotations

import math
from pathlib import Path

from bnnhw.boards.support import BoardSupport
from bnnhw.compiler.plan import Plan
from bnnhw.flow.verilog import rtlil_to_verilog, to_verilog
from bnnhw.gateware.engine import Engine
from bnnhw.gateware.flash import boot_image
from bnnhw.network.spec import NetworkSpec


def write_design(
    plan: Plan, spec: NetworkSpec, board: BoardSupport, clock_hz: float, folder: Path
) -> Path:
    """Write engine.v, top.il, top.v, the pins and flash.bin; returns the path of engine.v.

    Files whose content would not change are left as they are.
    """
    payload = plan.image.astype("<u8").tobytes()
    (folder / "flash.bin").write_bytes(boot_image(payload))
    engine = to_verilog(Engine(plan.parameters, image_base=plan.image_base), "engine", folder)
    top = board.top(
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
