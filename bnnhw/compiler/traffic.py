"""Accesses to the large memory that a plan makes for one image, from its program."""

from __future__ import annotations

from collections import Counter

from bnnhw.compiler.plan import Plan
from bnnhw.gateware.parameters import GROUP, EngineParameters
from bnnhw.gateware.program import DESCRIPTOR_WORDS, Geometry, Kind, Load, Sinks


def traffic(plan: Plan) -> dict[str, dict[str, int]]:
    """{"reads": {what: number}, "writes": {what: number}}, each of one word of up to 64 bits.

    program : descriptors. weights : with scales, biases and thresholds. image : written a byte, or
    16 bits of its thermometer, at a time. features : bits, spatial factors. residuals : the stream,
    the sums between passes and what gates' layers leave.
    """
    p = plan.parameters
    reads: Counter[str] = Counter()
    size = p.image_height * p.image_width * p.image_channels
    writes = Counter(image=size * max(1, p.byte_groups))
    for step in plan.steps:
        first, _, third, _, load = step.words
        geometry, sinks = Geometry.from_bits(first), Sinks.from_bits(third)
        if not p.streams:
            reads["program"] += DESCRIPTOR_WORDS
            reads["weights"] += 0 if p.resident else Load.from_bits(load).words
        if geometry.kind == Kind.STEM:
            reads["image"] += _bit_reads(geometry) if p.levels else _byte_reads(geometry, p)
        elif geometry.kind == Kind.CONV:
            reads.update(_map_reads(geometry, p))
        elif geometry.kind == Kind.POINTWISE:
            quads = 4 * (geometry.groups + 1)
            reads["residuals"] += _positions(geometry) * quads * (sinks.head_words + 1)
        else:
            reads["residuals"] += (geometry.columns + 1) * (sinks.head_words + 1)
            writes["residuals"] += p.macs * (geometry.columns + 1) * geometry.keep
        if geometry.kind != Kind.HEAD:
            writes.update(_map_writes(geometry, p))
    return dict(reads=dict(reads), writes=dict(writes))


def _positions(geometry: Geometry) -> int:
    return int(geometry.rows + 1) * int(geometry.columns + 1)


def _stream_words(geometry: Geometry, p: EngineParameters) -> int:
    """Words of a position's numbers, those of all its channels."""
    words: int = (geometry.groups + 1) * GROUP // p.per_word
    return words


def _bit_reads(geometry: Geometry) -> int:
    """Each word once for each strip, which takes the columns next to it too."""
    beside = 2 * (geometry.more_left or geometry.more_right)
    return int(geometry.rows + 1) * int(geometry.columns + 1 + beside) * int(geometry.folds + 1)


def _byte_reads(geometry: Geometry, p: EngineParameters) -> int:
    """A word for each tap that lies inside the image, for as many channels as there are sums."""
    height, width = int(geometry.rows + 1), int(geometry.columns + 1)
    walks: int = GROUP * (geometry.groups + 1) // p.macs
    return (3 * height - 2) * (3 * width - 2) * walks


def _map_reads(geometry: Geometry, p: EngineParameters) -> dict[str, int]:
    """The window is filled in every step, those that use no feature too."""
    words = _stream_words(geometry, p)
    blocks = (geometry.rows + 1 + geometry.above + geometry.below) * (geometry.columns + 1)
    counted = p.step_channels(p.slot_width)
    end = min(geometry.shortcut_end, words * p.per_word // counted)
    added = -(-(end - geometry.shortcut_first) * counted // p.per_word) * geometry.add
    operand = words if geometry.scaled else 0
    return dict(
        features=blocks * (1 if geometry.spatial else geometry.folds + 1),
        residuals=_positions(geometry) * (added + operand),
    )


def _map_writes(geometry: Geometry, p: EngineParameters) -> dict[str, int]:
    """A position with a single pixel writes one lane of each word."""
    return dict(
        features=_positions(geometry) * (geometry.groups + 1) * geometry.emit,
        residuals=_positions(geometry) * _stream_words(geometry, p) * geometry.keep,
    )
