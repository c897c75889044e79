"""Cycles of each step of a plan, before any simulation."""

from __future__ import annotations

from dataclasses import dataclass

STEP_OVERHEAD = 24  # descriptor, starting the unit, draining the pipeline


@dataclass(frozen=True)
class StepCycles:
    """Where a step's cycles go.

    compute : the array or the multipliers work. memory : they wait for the large memory.
    weights : the weight buffer is loaded. stall : filling and draining.
    """

    compute: int
    memory: int
    weights: int
    stall: int

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
    reads: bool, writes: bool, per_word: int, single: bool, weight_words: int, fetches: int,
) -> StepCycles:  # fmt: skip
    """A binary convolution: positions * channels * folds, plus what the residual stream needs.

    fetches : words of a block that fill the window.
    """
    positions = rows * columns
    channels = 16 * out_groups
    compute = positions * channels * folds
    if per_word == 2:
        idle = 2 * out_groups if folds == 1 else 0
    else:
        idle = channels * (folds % 2) + (2 * out_groups if folds <= 2 else 0)
    fill = 3 * 2 * (columns + 2) * fetches + rows * 3
    return StepCycles(compute, positions * idle, weight_words, fill + STEP_OVERHEAD)


def stem_cycles(height: int, width: int, channels: int, out: int, weight_words: int) -> StepCycles:
    """The stem, once its pixels are there: for each four channels nine taps and four cycles."""
    quads = 4 * -(-out // 16)
    compute = height * width * quads * 9 * channels
    return StepCycles(compute, 0, weight_words, height * width * quads * 4 + STEP_OVERHEAD)


def pointwise_cycles(
    positions: int, channels: int, out_groups: int, weight_words: int
) -> StepCycles:
    """An 8-bit 1x1 convolution: for each four channels a cycle for each input, padded ones too, a
    write for each channel, and seven until the next four begin."""
    groups = positions * out_groups
    compute = 4 * groups * 16 * -(-channels // 16)
    return StepCycles(compute, groups * 4 * 4, weight_words, groups * 4 * 7 + STEP_OVERHEAD)


def head_cycles(words: int, per_word: int, quads: int, weight_words: int) -> StepCycles:
    """Pooling and head: a cycle for each channel of a block, for each four classes."""
    return StepCycles(quads * words * per_word, 0, weight_words, quads * 10 + STEP_OVERHEAD)
