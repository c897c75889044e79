"""The stages of a build: each takes what the one before it returned. They are the library.

    model = load("resnet8-digits")                 a trained network
    network = lower(model)                         its integers: what the device computes
    plan = make_plan(network, board("icebreaker")) program, memory map and boot image
    design = write_design(plan, ..., "folder")     Verilog, pins and flash.bin
    proof = prove(design)                          simulated against the golden model
    chip = implement(design)                       netlist, placement and bitstream

Every result is frozen. No stage needs a console or the command line. What a user can mend raises
UserError, a ValueError of one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw import boards, datasets
from bnnhw.boards.support import BoardSupport
from bnnhw.compiler import plan as planning
from bnnhw.compiler.plan import Plan
from bnnhw.errors import UserError
from bnnhw.flow import design as designing
from bnnhw.flow import implement as tooling
from bnnhw.flow import prove as proving
from bnnhw.flow.design import Clocking, clocking
from bnnhw.flow.families import FAMILIES
from bnnhw.flow.implement import Placed
from bnnhw.flow.prove import Proof
from bnnhw.lowering import lower as lowering
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.nn.checkpoint import Checkpoint


@dataclass(frozen=True)
class Model:
    """A trained network as its file has it.

    name : of the file, without its suffix. sha256 : of its bytes, hexadecimal.
    checkpoint : spec, parameters, and `metrics`.
    """

    name: str
    path: Path
    sha256: str
    checkpoint: Checkpoint

    @property
    def spec(self) -> NetworkSpec:
        """Shape, repair methods and number formats."""
        return self.checkpoint.spec

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class, or none where the file does not say them."""
        return self.checkpoint.names

    @property
    def metrics(self) -> dict[str, Any]:
        """What the file says of its training and accuracies."""
        return self.checkpoint.metrics


@dataclass(frozen=True)
class Design:
    """A plan's hardware in files.

    folder : of the files and of all that the tools make of them.
    engine : Verilog of module `engine`, which the proof simulates.
    top : Verilog of module `top`, the whole design with the board's pins.
    flash : the boot image; it belongs at `board.flash_offset` of the board's flash.
    """

    plan: Plan
    board: BoardSupport
    clocking: Clocking
    folder: Path
    engine: Path

    @property
    def top(self) -> Path:
        return self.folder / "top.v"

    @property
    def flash(self) -> Path:
        return self.folder / "flash.bin"


@dataclass(frozen=True)
class Implementation:
    """A design on the chip.

    cells : how many of each resource the netlist takes.
    placed : clock and utilisation of the placement that met the clock.
    bitstream : the file that is loaded.
    """

    cells: dict[str, int]
    placed: Placed
    bitstream: Path


def load(model: str | Path) -> Model:
    """Returns the model of a model.pt, or of a bundled name. No code in the file is run.

    Raises UserError, naming the file, where it is no model.pt or is damaged.
    """
    path = checkpoint.find(model)
    return Model(path.stem, path, checkpoint.sha256(path), checkpoint.load(path))


def lower(model: Model, *, residual_width: int | None = None) -> IntegerNetwork:
    """Returns the integer network of a model: every number that the device computes with.

    residual_width : bits of the residual stream in place of the model's.
    Raises UserError, naming layer, value and rule, for what integers cannot represent.
    """
    return lowering.lower(model.checkpoint, residual_width=residual_width)


def board(name: str) -> BoardSupport:
    """Returns a board by its name. Raises UserError with the names there are."""
    try:
        return boards.board(name)
    except ValueError as fault:
        raise UserError(str(fault)) from None


def make_plan(
    network: IntegerNetwork, board: BoardSupport, *, pe: int | None = None,
    streams: bool | None = False,
) -> Plan:  # fmt: skip
    """Returns how a network lies on a board: program, memory map, boot image, engine parameters.

    pe : output channels in parallel, a power of two; None: as many as fit.
    streams : whether program and weights come from the flash while an image is worked on; None: on
        a board that can, where they do not fit the memory.

    Raises UserError where the engine cannot run it so, DoesNotFit, one of these with the table
    of all resources, if anything is too large.
    """
    return planning.make_plan(network, board, pe=pe, streams=streams)


def write_design(
    plan: Plan, board: BoardSupport, folder: str | Path, *, clock_hz: float | None = None,
    name: str = "", step: float = 0.0, bound: bool = True,
) -> Design:  # fmt: skip
    """Generate the hardware of a plan into `folder`, which is made. Returns its Design.

    clock_hz : None is the board's own; else the nearest below that its PLL makes.
    name, step : of the network and of a logit, for the host (bnnhw.flow.boot).
    bound : whether the gateware takes this boot image only; without, plans that differ in their
    weights alone have the same design.
    Files that would not change are left as they are. Raises UserError where the folder cannot be
    made, or where the PLL cannot make the clock.
    """
    clock, folder = clocking(board, clock_hz), Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise UserError(f"{folder}: {fault.strerror}; give another directory") from None
    engine = designing.write_files(plan, board, clock, folder, name=name, step=step, bound=bound)
    return Design(plan, board, clock, folder, engine)


def prove(
    design: Design, images: np.ndarray | None = None, *,
    progress: Callable[[int], None] = lambda done: None,
) -> Proof:  # fmt: skip
    """Simulate the engine's Verilog on images, and compare every tensor with the golden model.

    images : uint8 (N, H, W, C); None is one random image.
    progress : is called with the number of images done.

    Returns a Proof that is `bit_exact` or names the first value that differs. Raises UserError if
    the simulator cannot be built or gets stuck.
    """
    network = design.plan.network
    if images is None:
        images = datasets.random_pixels(network.spec.input, 1)
    return proving.prove(
        design.plan, network, design.engine, images, design.folder / "sim",
        byte_cycles=design.clocking.byte_cycles, progress=progress,
    )  # fmt: skip


def synthesise(design: Design) -> dict[str, int]:
    """Make the netlist of the top by Yosys. Returns how many cells of each resource it takes."""
    return tooling.synthesise(design.board, design.folder)


def place(design: Design, seed: int, seconds: float | None = None) -> Placed:
    """Place and route by nextpnr with one seed, whether or not it meets the clock.

    Comes after `synthesise`. Raises ToolError where nextpnr fails, ToolStopped after `seconds` or
    where it is hopeless.
    """
    return tooling.place(design.board, design.folder, seed, design.clocking.hz, seconds)


def place_and_route(
    design: Design, *, seed: int = 1, tell: Callable[[str], None] = lambda line: None
) -> Placed:
    """Place and route by nextpnr, with seeds from `seed` on until one meets the clock.

    Comes after `synthesise`. Raises UserError if none meets the clock.
    tell : gets a line for each seed that did not meet it.
    """
    return tooling.place_and_route(
        design.board, design.folder, seed=seed, clock_hz=design.clocking.hz, tell=tell
    )


def pack(design: Design, placed: Placed) -> Path:
    """Make the bitstream of a placement. Returns its path."""
    return tooling.pack(design.board, design.folder, placed.seed)


def implement(
    design: Design, *, seed: int = 1, tell: Callable[[str], None] = lambda line: None
) -> Implementation:
    """Synthesise, place and route, and pack a design.

    seed : the first that nextpnr tries. tell : gets a line for each that did not meet the clock.
    Raises UserError if none meets it, or where a tool fails.
    """
    cells = synthesise(design)
    placed = place_and_route(design, seed=seed, tell=tell)
    return Implementation(cells, placed, pack(design, placed))


def bitstream_name(board: BoardSupport) -> str:
    """Returns the file name of the board's bitstream."""
    return f"top.{FAMILIES[board.family].bitstream}"
