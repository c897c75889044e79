"""python -m bnnhw.build: model.pt -> plan, gateware, proof, bitstream, report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bnnhw import datasets
from bnnhw.boards import BOARDS
from bnnhw.boards.numbers import baud_divisor
from bnnhw.cli import Command
from bnnhw.compiler.plan import DoesNotFit, make_plan
from bnnhw.errors import UserError
from bnnhw.flow import implement, report, tools
from bnnhw.flow.design import write_design
from bnnhw.flow.families import FAMILIES
from bnnhw.flow.progress import Stages
from bnnhw.flow.prove import Proof, prove
from bnnhw.lowering.lower import lower
from bnnhw.nn import checkpoint

DEFAULT_MODEL = "resnet20-cifar10"
STOPS = ("plan", "verilog", "synth", "pnr")


@dataclass(frozen=True)
class Request:
    """What the user asked for. model : a path or a bundled name. clock_hz : None is the board's."""

    board: str
    model: str
    out: Path | None = None
    seed: int = 1
    clock_hz: float | None = None
    stop_after: str | None = None
    data: str | None = None
    images: int = 1
    residual_width: int | None = None


class Build:
    """A build in its stages, each using what the ones before it left.

    Everything is made in OUT/work, which is kept for the next build; finished files move to OUT,
    report.json last. Nothing is written before the plan stands.
    """

    def __init__(self, request: Request, console: Console) -> None:
        self.request = request
        self.console = console
        self.stages = Stages(console)
        self.board = BOARDS[request.board]
        self.family = FAMILIES[self.board.family]
        self.proof: Proof | None = None
        self.cells: dict[str, int] | None = None
        self.placed: implement.Placed | None = None
        self.source = "random"

    def run(self) -> dict[str, Any]:
        """Run all stages asked for; returns the report."""
        with self.stages.stage("plan", "integers, memory map and program"):
            self.plan_network()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise UserError(f"--out {self.out}: {fault.strerror}; give another directory") from None
        stop = self.request.stop_after
        steps: list[tuple[str, str, Callable[[], None]]] = [
            ("verilog", "gateware to Verilog", self.write_verilog),
            ("prove", "compile the simulator, compare with the golden", self.prove),
            ("synth", "Yosys", self.synthesise),
            ("pnr", "nextpnr", self.place_and_route),
            ("pack", "bitstream", self.pack),
        ]
        last = {"plan": 0, "verilog": 2, "synth": 3, "pnr": 4}.get(stop or "", len(steps))
        for name, what, action in steps[:last]:
            with self.stages.stage(name, what + self._cold(name)):
                action()
            if self.proof and not self.proof.bit_exact:
                break
        return self.publish()

    def _cold(self, stage: str) -> str:
        family = self.family
        used = dict(verilog=tools.YOSYS, pnr=family.nextpnr, pack=family.packer).get(stage)
        first = used is not None and tools.is_cold(used)
        return " (its first run compiles it: about a minute)" if first else ""

    def plan_network(self) -> None:
        """Read the model, lower it, plan it; UserError for all that cannot be."""
        request = self.request
        self.clock_hz, self.baud, self.byte_cycles = self._clock()
        path = checkpoint.find(request.model)
        self.checkpoint = checkpoint.load(path)
        self.name = path.stem
        self.sha256 = checkpoint.sha256(path)
        self.network = lower(self.checkpoint, residual_width=request.residual_width)
        self.out = request.out or Path("build") / f"{request.board}-{self.name}"
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out}: is a file; give a directory")
        self.work = self.out / "work"
        self.plan = make_plan(self.network, self.board)
        self.images = self._images()

    def _clock(self) -> tuple[float, int, int]:
        """The clock that the PLL makes of the one asked for; the port's baud and cycles a byte."""
        try:
            asked = self.request.clock_hz or self.board.clock_hz
            made = self.board.pll(asked).output_hz
            baud, divisor = baud_divisor(made, self.board.max_baud)
        except ValueError as fault:
            raise UserError(f"--clock: {fault}") from None
        return made, baud, 10 * divisor

    def _images(self) -> np.ndarray:
        """The proof's images: of the test set given or bundled, else random."""
        spec, count = self.network.spec, self.request.images
        bundled = datasets.SHAPES["digits"] == (spec.input, spec.classes)
        if self.request.data is None and not bundled:
            return datasets.random_pixels(spec.input, count)
        self.source = datasets.guess(spec.input, spec.classes)
        return datasets.load(self.source, self.request.data, "test").first(count).pixels

    def write_verilog(self) -> None:
        """engine.v for the proof; top.il, its pins and top.v for the board; flash.bin."""
        self.engine_verilog = write_design(
            self.plan, self.network.spec, self.board, self.clock_hz, self.work
        )

    def prove(self) -> None:
        """Simulate the engine's Verilog on the images."""
        count = len(self.images)
        self.proof = prove(
            self.plan, self.network, self.engine_verilog, self.images, self.work / "sim",
            byte_cycles=self.byte_cycles,
            progress=lambda done: self.stages.tell(f"prove: {done} of {count} images"),
        )  # fmt: skip
        verdict = "bit-exact" if self.proof.bit_exact else f"MISMATCH: {self.proof.mismatch}"
        self.stages.tell(f"prove: {self.proof.tensors} tensors, {verdict}")

    def synthesise(self) -> None:
        self.cells = implement.synthesise(self.board, self.work)

    def place_and_route(self) -> None:
        self.placed = implement.place_and_route(
            self.board, self.work, seed=self.request.seed, clock_hz=self.clock_hz,
            tell=lambda line: self.stages.tell(f"pnr: {line}"),
        )  # fmt: skip

    def pack(self) -> None:
        if self.placed is not None:
            implement.pack(self.board, self.work, self.placed.seed)

    def publish(self) -> dict[str, Any]:
        """Copy what this build made to OUT, the report last; what it did not make goes."""
        stages = self.stages.seconds
        products = {"flash.bin": "verilog", "top.v": "verilog"}  # and their stages
        products[f"top.{self.family.bitstream}"] = "pack"
        made = [self.work / name for name, stage in products.items() if stage in stages]
        logs = [*self.work.glob("*.log"), *self.work.glob("sim/*.log")]
        made += [log for log in logs if log.stat().st_mtime >= self.stages.started_at]
        for source in made:
            partial = self.out / (source.name + ".part")
            shutil.copyfile(source, partial)
            os.replace(partial, self.out / source.name)
        for name in {*products} - {source.name for source in made}:
            (self.out / name).unlink(missing_ok=True)
        content = self.report()
        report.write(content, self.out / "report.json")
        return content

    def report(self) -> dict[str, Any]:
        """The content of report.json."""
        as_trained = self.network.spec.formats.residual_width == (
            self.checkpoint.spec.formats.residual_width
        )
        metrics = self.checkpoint.metrics
        return dict(
            board=self.board.name,
            device=f"{self.board.device}-{self.board.package}",
            model=report.model_entry(self.name, self.sha256, self.network),
            resources=report.resource_entry(self.board, self.cells, self.placed),
            timing=report.timing_entry(self.placed, self.clock_hz),
            performance=report.performance_entry(
                self.plan, self.network, self.proof, self.clock_hz, self.baud
            ),
            verification=report.verification_entry(self.proof, self.source),
            accuracy=report.accuracy_entry(metrics, as_trained=as_trained),
            flash=dict(file="flash.bin", offset=self.board.flash_offset),
            seconds=self.stages.seconds,
            tools=report.tool_entry(),
        )


def show_resources(fault: DoesNotFit, console: Console) -> None:
    """Print the table of a network that does not fit."""
    table = Table(title="does not fit")
    for column in ("resource", "needed", "available", "what would make it fit"):
        table.add_column(column)
    for part in fault.resources:
        remedy, style = ("", "") if part.fits else (part.remedy, "red")
        table.add_row(part.name, f"{part.used:,}", f"{part.available:,}", remedy, style=style)
    console.print(table)


@click.command(cls=Command)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--board", type=click.Choice(sorted(BOARDS)), required=True)
@click.option("--out", type=click.Path(path_type=Path), help="Default: build/BOARD-MODEL.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--clock", type=float, help="MHz; the nearest below that the PLL makes.")
@click.option("--stop-after", type=click.Choice(STOPS))
@click.option("--data", "directory", help="Data set whose test images are run; else random ones.")
@click.option("--images", type=click.IntRange(1), default=1, show_default=True)
@click.option("--residual-width", type=click.IntRange(8, 16), help="Bits, instead of the model's.")
@click.pass_context
def main(
    ctx: click.Context, model: str, board: str, out: Path | None, seed: int, clock: float | None,
    stop_after: str | None, directory: str | None, images: int, residual_width: int | None,
) -> None:  # fmt: skip
    """Build MODEL (a model.pt or a bundled model's name) for a board, and prove it."""
    console = Console(soft_wrap=True)
    clock_hz = None if clock is None else clock * 1e6
    request = Request(
        board, model, out, seed, clock_hz, stop_after, directory, images, residual_width
    )
    build = Build(request, console)
    try:
        content = build.run()
    except DoesNotFit as fault:
        show_resources(fault, console)
        raise
    report.show(content, console)
    console.print(f"{build.out}/report.json", highlight=False)
    if stop_after is None and build.placed:
        load = build.board.load.format(folder=build.out, offset=build.board.flash_offset)
        console.print(f"load: {load}", highlight=False)
    if build.proof and not build.proof.bit_exact:
        ctx.exit(1)


if __name__ == "__main__":
    main()
