"""The engine for a design of one's own: its Verilog, its weights, its testbench, how to use it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Value

from bnnhw import golden
from bnnhw.boards.support import BoardSupport
from bnnhw.compiler.plan import Plan
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.flow.families import FAMILIES
from bnnhw.flow.templating import template
from bnnhw.flow.verilog import rtlil_to_verilog
from bnnhw.gateware.core import Core
from bnnhw.gateware.engine import Engine
from bnnhw.jobs.files import replacing, write_text
from bnnhw.sim.runner import HERE, SimulationError, simulate

MODULE = "bnnhw_engine"
TESTBENCH = f"test_{MODULE}.py"


@dataclass(frozen=True)
class CoreFiles:
    """What `write_core` leaves. inside : whether the Verilog has the weights."""

    folder: Path
    inside: bool

    @property
    def verilog(self) -> Path:
        return self.folder / f"{MODULE}.v"


def make_core(plan: Plan, *, inside: bool = True) -> Core:
    """Returns the engine of a plan as an Amaranth component with its memories.

    bnnhw.gateware.core has its ports. inside : whether its memory has the weights when the device
    starts, which SPRAM cannot; else they come by its stream `load`, the bytes of `load_bytes`.
    Raises UserError for a plan whose program and weights are a stream of words.
    """
    if plan.words is not None:
        raise UserError("a core holds its weights: plan it without streams")
    end = max(start + length for _, start, length in plan.memory_map)
    return Core(
        Engine(plan.parameters, image_base=plan.image_base),
        plan.image.tolist(),
        words=1 << (end - 1).bit_length() if inside else plan.memory_words,
        stream_words=plan.stream_words,
        apart=plan.parameters.slot_width,
        inside=inside,
    )


def load_bytes(plan: Plan) -> bytes:
    """Returns program and weights as the stream `load` wants them."""
    return plan.image.astype("<u8").tobytes()


def write_core(
    plan: Plan, board: BoardSupport, folder: Path, *, images: np.ndarray, clock_hz: float, name: str
) -> CoreFiles:
    """Write Verilog, weights, clock constraint, testbench and README.md into a folder.

    board : whose chip the plan is for; its memory decides whether the weights are inside.
    images : uint8 (N, H, W, C), of the testbench. clock_hz : of the constraint. name : of the
    network.
    """
    inside = bool(board.memory_ebr)
    files = CoreFiles(folder, inside)
    core, content = make_core(plan, inside=inside), load_bytes(plan)
    ports = {
        "_".join(map(str, path)): (Value.cast(value), None)
        for path, _, value in core.signature.flatten(core)
    }
    text = rtlil.convert(core, name=MODULE, platform=board.family, ports=ports, emit_src=False)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    empty = [] if inside else [f"{MODULE}.memory"]
    shutil.copyfile(rtlil_to_verilog(text, MODULE, work, uninitialised=empty), files.verilog)
    with replacing(folder / "weights.bin") as partial:
        partial.write_bytes(content)
    write_text(folder / "weights.hex", "".join(f"{byte:02x}\n" for byte in content))
    write_text(folder / "vectors.json", _vectors(plan, images, None if inside else content))
    shutil.copyfile(HERE / "core_test.py", folder / TESTBENCH)
    period = 1e9 / clock_hz
    write_text(
        folder / f"{MODULE}.sdc", f"create_clock -name clk -period {period:.3f} [get_ports clk]\n"
    )
    spec = plan.network.spec
    page = template("bnnhw.flow", "core.md").render(
        name=name, board=board, inside=inside, spec=spec, clock_mhz=clock_hz / 1e6,
        n_bytes=len(content), synthesis=FAMILIES[board.family].alone,
    )  # fmt: skip
    write_text(folder / "README.md", page)
    return files


def _vectors(plan: Plan, images: np.ndarray, content: bytes | None) -> str:
    """Returns vectors.json: the weights to load, images, and the golden's logits and classes."""
    taps = golden.run(plan.network, images)
    answers = [
        [*map(int, logits), int(label)]
        for logits, label in zip(taps["head.logits"], taps["class"], strict=True)
    ]
    content_hex = None if content is None else content.hex()
    return json.dumps(
        dict(load=content_hex, images=[image.tobytes().hex() for image in images], answers=answers)
    )


def prove_core(files: CoreFiles) -> None:
    """Run a core's testbench in Verilator; raises UserError where it does not pass."""
    tools.check_host()
    work = files.folder / "work"
    visible = work / "ports.vlt"
    write_text(
        visible, f'`verilator_config\npublic_flat_rw -module "{MODULE}" -var "*" @(edge clk)\n'
    )
    try:
        simulate(
            sources=[visible, files.verilog], top=MODULE, test_module="bnnhw.sim.core_test",
            folder=work, environment=tools.environment(),
            variables={"CORE_VECTORS": str((files.folder / "vectors.json").resolve())},
        )  # fmt: skip
    except SimulationError as fault:
        raise UserError(f"{files.folder}: the testbench does not pass: {fault}") from None
