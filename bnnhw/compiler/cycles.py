"""Cycles of each step of a plan, before any simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bnnhw.gateware.parameters import GROUP, ArrayShape

RESULT_CYCLES = 31  # of a logit's bits after its first
STEP_OVERHEAD = 32  # descriptor, starting the unit, draining the pipeline


@dataclass(frozen=True)
class StepCycles:
    """Where a step's cycles go.

    compute : the array or the multipliers work. memory : they wait for the large memory.
    weights : the weight buffer is loaded. stall : filling and draining.
    free : of them all, those in which the step does not use the large memory.
    """

    compute: int
    memory: int
    weights: int
    stall: int
    free: int = 0

    def after(self, before: StepCycles) -> StepCycles:
        """The same step where the one before leaves its free cycles to this one's weights."""
        return replace(self, weights=max(0, self.weights - before.free))

    @property
    def total(self) -> int:
        return self.compute + self.memory + self.weights + self.stall

    @property
    def bound_by(self) -> str:
        """What most of the cycles go to."""
        parts = {"compute": self.compute, "memory": self.memory, "weights": self.weights}
        return max(parts, key=lambda name: parts[name])


def convolution_cycles(
    rows: int, columns: int, folds: int, out_groups: int, *,
    reads: int, writes: bool, per_word: int, single: bool, weight_words: int, fetches: int,
    shape: ArrayShape,
) -> StepCycles:  # fmt: skip
    """A binary convolution: positions * channels * folds, plus what the residual stream needs.

    fetches : words of a block that fill the window. reads : maps of numbers that it reads.
    """
    positions = rows * columns
    channels = 16 * out_groups
    tokens = channels // shape.pe
    compute = positions * tokens * folds
    idle = 0 if per_word == 2 * shape.pe else tokens * (folds % 2)
    if not shape.own_stream and folds <= 2 - (per_word == 2):
        idle += 2 * out_groups
    fill = 3 * 2 * (columns + 2) * fetches + rows * 3
    memory, stall = positions * idle, fill + STEP_OVERHEAD
    stream = 0 if shape.own_stream else channels // per_word * (reads + writes)
    used = positions * (stream + out_groups + fetches)
    free = max(0, compute + memory + stall - used)
    return StepCycles(compute, memory, weight_words, stall, free)


def stem_cycles(
    height: int, width: int, channels: int, out: int, weight_words: int, shape: ArrayShape
) -> StepCycles:
    """The stem, once its pixels are there: for each walk nine taps and four cycles."""
    quads = GROUP // shape.macs * -(-out // GROUP)
    compute = height * width * quads * 9 * channels
    stall = height * width * quads * 4 + STEP_OVERHEAD
    return StepCycles(compute, 0, weight_words, stall, stall)


def pointwise_cycles(
    positions: int, channels: int, out_groups: int, weight_words: int
) -> StepCycles:
    """An 8-bit 1x1 convolution: for each four channels a cycle for each input, padded ones too, a
    write for each channel, and seven until the next four begin."""
    groups = positions * out_groups
    compute = 4 * groups * 16 * -(-channels // 16)
    stall = groups * 4 * 7 + STEP_OVERHEAD
    return StepCycles(compute, groups * 4 * 4, weight_words, stall, stall)


def head_cycles(
    words: int, per_word: int, quads: int, weight_words: int, results: int = 0
) -> StepCycles:
    """Pooling and head: a cycle for each channel of a block, for each four classes.

    results : logits that are compared bit by bit, a word's time each (bnnhw.gateware.results). One
    that is the greatest so far takes another; the frame's first counts as two, of the others it is
    not known.
    """
    stall = quads * 10 + results * RESULT_CYCLES + STEP_OVERHEAD
    free = quads * words * (per_word - 1) + stall
    return StepCycles(quads * words * per_word, 0, weight_words, stall, free)
