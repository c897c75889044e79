"""Proves an engine: its generated Verilog, simulated, against the golden, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw import golden
from bnnhw.compiler.plan import Plan
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.gateware.parameters import GROUP, LANES, TAPS
from bnnhw.network.integer import IntegerNetwork
from bnnhw.sim.engine_bench import SIMULATOR, Frame, read_snapshot, run_engine
from bnnhw.sim.runner import SimulationError

BATCH = 8  # images a simulation, which bounds the disk its memory snapshots take


@dataclass(frozen=True)
class Mismatch:
    """The first value that differs.

    image : its index. position : (y, x, c), or (class,). expected, got : the golden's and the
        engine's.
    """

    image: int
    tensor: str
    position: tuple[int, ...]
    expected: int
    got: int

    def __str__(self) -> str:
        return (
            f"image {self.image}: {self.tensor}{list(self.position)} is {self.got}, "
            f"the golden has {self.expected}"
        )


@dataclass(frozen=True)
class Proof:
    """What the simulation of some images showed.

    tensors : arrays compared with the golden, over all runs.
    latency : the most cycles from an image's last byte to its class. Bytes come as fast as the
        board's link brings them, and the stem works meanwhile.
    busy : cycles from an image's first byte to its class, with a byte in every cycle. The engine
        needs so many for an image.
    step_cycles : {step: cycles}, the parts of `busy`.
    """

    images: int
    tensors: int
    mismatch: Mismatch | None
    latency: int
    busy: int
    step_cycles: dict[int, int]
    simulator: str

    @property
    def bit_exact(self) -> bool:
        return self.mismatch is None


def first_difference(
    image: int, tensor: str, expected: np.ndarray, got: np.ndarray
) -> Mismatch | None:
    """Returns the first place, in C order, where two arrays differ, or None if they are equal.

    Raises UserError where the shapes differ, as no position can be named then.
    """
    expected, got = np.asarray(expected, np.int64), np.asarray(got, np.int64)
    if expected.shape != got.shape:
        raise UserError(f"image {image}: {tensor} is {got.shape}, the golden has {expected.shape}")
    different = np.argwhere(expected != got)
    if not len(different):
        return None
    at = tuple(int(index) for index in different[0])
    return Mismatch(image, tensor, at, int(expected[at]), int(got[at]))


def compare(
    plan: Plan, frame: Frame, image: int, taps: dict[str, np.ndarray], row: int
) -> tuple[int, Mismatch | None]:
    """Compare an image's frame with row `row` of the golden's tensors.

    Returns how many tensors were compared, and the mismatch or None.
    """
    count = 0
    for step, _ in frame.step_ends:
        memory = read_snapshot(frame.snapshots[step])
        stream = read_snapshot(frame.stream_snapshots[step]) if plan.stream_words else None
        for name, got in plan.tensors(step, memory, stream).items():
            count += 1
            if wrong := first_difference(image, name, taps[name][row], got):
                return count, wrong
    results = {"head.logits": frame.logits, "class": np.array(frame.label)}
    for name, got in results.items():
        count += 1
        if wrong := first_difference(image, name, taps[name][row], got):
            return count, wrong
    return count, None


def _cycle_limit(network: IntegerNetwork) -> int:
    """Returns the cycles after which an image is given up: eight times the array's own."""
    macs = sum(shape.macs for shape in network.spec.convolutions())
    return 1_000_000 + 8 * macs // (LANES * GROUP * TAPS)


def _step_cycles(frame: Frame) -> dict[int, int]:
    """Returns the cycles of each step."""
    before, cycles = 0, {}
    for step, end in frame.step_ends:
        cycles[step] = end - before
        before = end
    return cycles


class _Prover:
    """Runs batches of images and compares them, until the first mismatch."""

    def __init__(self, plan: Plan, network: IntegerNetwork, verilog: Path, folder: Path) -> None:
        self.plan, self.network, self.folder = plan, network, folder
        self.sources = [verilog]
        self.environment = tools.environment()
        self.images, self.tensors = 0, 0
        self.mismatch: Mismatch | None = None

    def run(self, images: np.ndarray, first: int, byte_cycles: int) -> list[Frame]:
        """Simulate and compare images numbered from `first`. Returns their frames."""
        taps = golden.run(self.network, images, taps="all")
        limit = _cycle_limit(self.network) + images[0].size * byte_cycles
        try:
            frames: list[Frame] = run_engine(
                self.sources, boot=self.plan.image, images=images,
                classes=self.network.spec.classes, folder=self.folder,
                environment=self.environment, byte_cycles=byte_cycles, cycle_limit=limit,
                memory_words=self.plan.memory_words, stream_words=self.plan.stream_words,
                stream_width=self.plan.parameters.word_width, words=self.plan.words,
            )  # fmt: skip
        except SimulationError as fault:
            raise UserError(f"proof: {fault}") from None
        for row, frame in enumerate(frames):
            count, self.mismatch = compare(self.plan, frame, first + row, taps, row)
            self.tensors += count
            self.images = max(self.images, first + row + 1)
            if self.mismatch:
                break
        for old in self.folder.glob("s*_*_*.hex"):
            old.unlink()
        return frames


def prove(
    plan: Plan,
    network: IntegerNetwork,
    verilog: Path,
    images: np.ndarray,
    folder: Path,
    *,
    byte_cycles: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Proof:
    """Simulate uint8 images (N, H, W, C) on module `engine` of `verilog`, and compare everything.

    The first image runs twice: with a byte in every cycle, and then, as all others, with a byte
    each `byte_cycles`.
    folder : keeps the compiled simulator for the next proof.
    progress : is called with the number of images done.

    Stops at the first mismatch. Raises UserError if the simulator cannot be built or gets stuck.
    """
    tools.check_host()
    prover = _Prover(plan, network, verilog, folder)
    (alone,) = prover.run(images[:1], 0, 1)
    latency = 0
    for start in range(0, len(images), BATCH):
        if prover.mismatch:
            break
        frames = prover.run(images[start : start + BATCH], start, byte_cycles)
        latency = max(latency, *(frame.latency for frame in frames))
        progress(start + len(frames))
    return Proof(
        images=prover.images,
        tensors=prover.tensors,
        mismatch=prover.mismatch,
        latency=latency,
        busy=alone.total,
        step_cycles=_step_cycles(alone),
        simulator=f"{SIMULATOR} {tools.version(SIMULATOR)}",
    )
