"""A program and its weights as a stream of words, a round of it a frame, in place of in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bnnhw.compiler.cycles import StepCycles
from bnnhw.compiler.entries import HEAD_FOLDS
from bnnhw.compiler.schedule import Task
from bnnhw.gateware.parameters import SHORT_NIBBLES, WORD_NIBBLES, stream_nibbles
from bnnhw.gateware.program import DESCRIPTOR_WORDS

LOW = np.uint64((1 << 4 * SHORT_NIBBLES) - 1)  # bits of a short word


@dataclass(frozen=True)
class WordStream:
    """Words in order, uint64, and which of them are short, as bnnhw.gateware.qspi has them."""

    words: np.ndarray
    short: np.ndarray

    @property
    def nibbles(self) -> int:
        """Of all words, without the check sum."""
        return stream_nibbles(self.short)


def folds(task: Task) -> int:
    """Returns how many entries of a step have parameters in the first of them alone."""
    if task.gives_logits:
        return HEAD_FOLDS
    if task.work is None:
        return 1
    return task.work.folds if task.work.kind == "conv" else 1


def short_words(task: Task) -> np.ndarray:
    """Returns which of a step's words are short, bool (words,): those of entries that are not the
    first of their folds. Nobody needs these entries' parameters."""
    each = folds(task)
    rows = [len(task.entry_rows)] * each
    rows[0] += bool(task.slope_folds)
    pattern = np.repeat(np.arange(each) > 0, rows)
    return np.resize(pattern, len(task.contents))


def word_stream(first: int, tasks: list[Task], steps: list[tuple[int, ...]]) -> WordStream:
    """Returns the first step's Load, its weights and its descriptor, then the others'.

    steps : of each task the words of its descriptor.
    """
    parts = list(_parts(first, tasks, steps))
    words, short = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return WordStream(np.where(short, words & LOW, words), short)


def _parts(
    first: int, tasks: list[Task], steps: list[tuple[int, ...]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield np.array([first], np.uint64), np.zeros(1, bool)
    for task, step in zip(tasks, steps, strict=True):
        yield task.contents, short_words(task)
        yield np.array(step, np.uint64), np.zeros(DESCRIPTOR_WORDS, bool)


def linked(cycles: StepCycles, task: Task) -> StepCycles:
    """Returns a step's cycles where a quad flash brings its weights: a nibble in each, whether or
    not the memory is used. Its descriptor comes when the step before is done."""
    worked = cycles.compute + cycles.memory + cycles.stall
    stall = cycles.stall + DESCRIPTOR_WORDS * WORD_NIBBLES
    return replace(cycles, weights=stream_nibbles(short_words(task)), stall=stall, free=worked)
