"""A build: runs the stages one after the other, tells of each, and publishes what they made."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bnnhw import datasets, golden
from bnnhw.compiler.plan import DoesNotFit
from bnnhw.errors import UserError
from bnnhw.flow import report, stages, tools
from bnnhw.flow.boot import logit_step
from bnnhw.flow.core import CoreFiles, prove_core, write_core
from bnnhw.flow.design import clocking
from bnnhw.flow.families import FAMILIES
from bnnhw.flow.implement import Placed
from bnnhw.flow.modules import count_modules
from bnnhw.flow.page import page
from bnnhw.flow.progress import Stages
from bnnhw.flow.prove import Proof
from bnnhw.jobs.files import digest_of, publish, sweep
from bnnhw.jobs.locks import alone_in
from bnnhw.lowering import lower as lowering
from bnnhw.nn.untrained import untrained

STOPS = {"plan": 0, "verilog": 2, "synth": 3, "pnr": 4}  # how many stages follow the plan
REPORT, PAGE = "report.json", "report.html"
VERILOG = ("flash.bin", "top.v")  # products of the stage verilog


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    model : a path or a bundled name. clock_hz : None is the board's own.
    pe : output channels in parallel; None: as many as fit.
    images : how many are proved. evaluate : how many of `data` the integers classify.
    """

    board: str
    model: str
    out: Path | None = None
    seed: int = 1
    clock_hz: float | None = None
    stop_after: str | None = None
    data: str | None = None
    images: int = 1
    residual_width: int | None = None
    resize: bool = False
    evaluate: int = 0
    pe: int | None = None


class Build:
    """A build in its stages. Each uses what the stages before it left.

    Everything is made in OUT/work, which is kept for the next build. Finished files move to OUT
    together, report.json last. Nothing is written before the plan stands. Meanwhile no other build
    can have OUT.
    """

    def __init__(self, request: Request, console: Console) -> None:
        self.request = request
        self.stages = Stages(console)
        self.board = stages.board(request.board)
        self.family = FAMILIES[self.board.family]
        self.proof: Proof | None = None
        self.cells: dict[str, int] | None = None
        self.modules: dict[str, dict[str, int]] | None = None
        self.placed: Placed | None = None
        self.source = "random"
        self.measured: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """Run all stages asked for. Returns the report."""
        with self.stages.stage("plan", "integers, memory map and program"):
            self.plan_network()
        self.check_place()
        if self.tested is not None and self.request.evaluate:
            with self.stages.stage("accuracy", "integers on test images"):
                self.evaluate(self.tested.first(self.request.evaluate))
        with alone_in(self.out):
            return self._run()

    def make_core(self, folder: Path) -> CoreFiles:
        """Leave the engine of the plan in a folder, for another design, and prove it there."""
        with self.stages.stage("plan", "integers, memory map and program"):
            self.plan_network()
        with alone_in(folder, "--core"):
            with self.stages.stage("core", "gateware to Verilog"):
                files = write_core(
                    self.plan, self.board, folder, images=self.images,
                    clock_hz=self.clocking.hz, name=self.model.name,
                )  # fmt: skip
            with self.stages.stage("prove", "its testbench in Verilator"):
                prove_core(files)
        return files

    def _run(self) -> dict[str, Any]:
        self.work.mkdir(exist_ok=True)
        for folder in (self.out, self.work):
            sweep(folder)
        steps: list[tuple[str, str, Callable[[], None]]] = [
            ("verilog", "gateware to Verilog", self.write_verilog),
            ("prove", "compile the simulator, compare with the golden", self.prove),
            ("synth", "Yosys", self.synthesise),
            ("pnr", "nextpnr", self.place_and_route),
            ("pack", "bitstream", self.pack),
        ]
        last = STOPS.get(self.request.stop_after or "", len(steps))
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
        """Read the model, lower it and plan it. Raises UserError for all that cannot be."""
        request = self.request
        self.clocking = clocking(self.board, request.clock_hz)
        self.model = stages.load(request.model)
        try:
            self.network = stages.lower(self.model, residual_width=request.residual_width)
        except UserError:
            self._check_size()
            raise
        self.out = request.out or Path("build") / f"{request.board}-{self.model.name}"
        self.work = self.out / "work"
        self.plan = stages.make_plan(self.network, self.board, pe=request.pe, streams=None)
        self.images = self._images()

    def _check_size(self) -> None:
        """Raise DoesNotFit if no network of the model's shape fits, whatever its parameters are.

        For one that is too large this says more than the first number that leaves its range.
        """
        network = untrained(self.model.spec)
        for name, parameter in network.head.named_parameters():
            if name.endswith("bias"):  # it is in range beside sums of any number of pixels
                parameter.data.zero_()
        try:
            stages.make_plan(lowering.lower(network), self.board)
        except DoesNotFit:
            raise
        except UserError:
            return

    def check_place(self) -> None:
        """Raise UserError where OUT cannot take this build, or where it would lose a bitstream."""
        out, stop = self.out, self.request.stop_after
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file; give a directory")
        bitstream = stages.bitstream_name(self.board)
        for name in (REPORT, bitstream, *VERILOG):
            if (out / name).is_dir():
                raise UserError(f"--out {out}: {name} in it is a folder; give another directory")
        if self.work.exists() and not self.work.is_dir():
            raise UserError(f"--out {out}: work in it is a file; give another directory")
        if stop and (out / bitstream).exists():
            raise UserError(
                f"--out {out}: holds a whole build, whose {bitstream} --stop-after {stop} would "
                f"remove; give another directory"
            )

    def _images(self) -> np.ndarray:
        """Returns the proof's images: of a test set that was given or is bundled, else random."""
        request, spec = self.request, self.network.spec
        self.tested: datasets.Images | None = None
        bundled = datasets.SHAPES["digits"] == (spec.input, spec.classes)
        if request.data is None and not bundled:
            return datasets.random_pixels(spec.input, request.images)
        source = datasets.suiting(spec.input, spec.classes, request.data)
        self.source, names = source.name, self.model.names
        images = source.fitting(
            "test", spec.input, spec.classes, resize=request.resize, names=names
        )
        if request.images > len(images):
            raise UserError(
                f"--images {request.images}: {source.name} has {len(images)} test images"
            )
        if request.data is not None:
            self.tested = images
        return images.first(request.images).pixels

    def evaluate(self, images: datasets.Images) -> None:
        """Measure which part of the images the integers know."""
        classes = golden.run(self.network, images.pixels)["class"]
        top1 = round(100.0 * float((classes == images.labels).mean()), 2)
        self.measured = dict(dataset=self.source, split="test", images=len(images), integer=top1)
        self.stages.tell(f"accuracy: {top1:.2f} % of {len(images)} test images")

    def write_verilog(self) -> None:
        """Write engine.v for the proof; top.il, its pins and top.v for the board; flash.bin."""
        self.design = stages.write_design(
            self.plan,
            self.board,
            self.work,
            clock_hz=self.request.clock_hz,
            name=self.model.name,
            step=logit_step(self.model.checkpoint.folded(), self.network.spec),
        )

    def prove(self) -> None:
        """Simulate the engine's Verilog on the images."""
        count = len(self.images)
        self.proof = stages.prove(
            self.design, self.images,
            progress=lambda done: self.stages.tell(f"prove: {done} of {count} images"),
        )  # fmt: skip
        verdict = "bit-exact" if self.proof.bit_exact else f"MISMATCH: {self.proof.mismatch}"
        self.stages.tell(f"prove: {self.proof.tensors} tensors, {verdict}")

    def synthesise(self) -> None:
        """Make the netlist."""
        self.cells = stages.synthesise(self.design)
        self.modules = count_modules(self.work, self.family)

    def place_and_route(self) -> None:
        """Make the placed design that meets the clock."""
        self.placed = stages.place_and_route(
            self.design, seed=self.request.seed, tell=lambda line: self.stages.tell(f"pnr: {line}")
        )

    def pack(self) -> None:
        """Make the bitstream."""
        if self.placed is not None:
            stages.pack(self.design, self.placed)

    def publish(self) -> dict[str, Any]:
        """Put what this build made into OUT, all or nothing. Remove there what it did not make."""
        done = self.stages.seconds
        products = dict.fromkeys(VERILOG, "verilog") | {stages.bitstream_name(self.board): "pack"}
        made = [self.work / name for name, stage in products.items() if stage in done]
        logs = [*self.work.glob("*.log"), *self.work.glob("sim/*.log")]
        logs = [log for log in logs if log.stat().st_mtime >= self.stages.started_at]
        content = self.report() | dict(files={source.name: digest_of(source) for source in made})
        files: dict[str, Path | str] = {source.name: source for source in (*made, *logs)}
        folder, offset = shlex.quote(str(self.out)), self.board.flash_offset
        files[PAGE] = page(content, self.board.load.format(folder=folder, offset=offset))
        publish(self.out, files | {REPORT: report.text(content)}, REPORT, products.keys() - files)
        return content

    def report(self) -> dict[str, Any]:
        """Returns the content of report.json."""
        as_trained = self.network.spec.formats.residual_width == (
            self.model.spec.formats.residual_width
        )
        board, clock_hz = self.board, self.clocking.hz
        return dict(
            board=board.name,
            device=f"{board.device}-{board.package}",
            model=report.model_entry(
                self.model.name, self.model.sha256, self.network, self.model.names
            ),
            resources=report.resource_entry(board, self.cells, self.placed),
            timing=report.timing_entry(self.placed, clock_hz),
            performance=report.performance_entry(
                self.plan, self.network, self.proof, clock_hz, self.clocking.baud
            ),
            verification=report.verification_entry(self.proof, self.source),
            accuracy=report.accuracy_entry(
                self.model.metrics, self.measured, as_trained=as_trained
            ),
            modules=self.modules,
            formats=report.format_entries(self.network),
            flash=dict(
                file="flash.bin", offset=board.flash_offset, streamed=self.plan.words is not None
            ),
            seconds=self.stages.seconds,
            tools=report.tool_entry(),
        )
