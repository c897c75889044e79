"""IntegerNetwork -> the steps of its program in order, and the places in memory they use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bnnhw import entries, layout
from bnnhw.integer import IntegerConvolution, IntegerNetwork
from bnnhw.layout import GROUP
from bnnhw.passes import (
    SIGNS,
    STREAM,
    Pass,
    averages,
    convolution_passes,
    further_bits,
    move,
    moves_first,
    needs_passes,
    signs,
    stem,
)

WEIGHT_DEPTH = 256
WINDOW_GROUPS = 64  # groups of 16 channels in a row of blocks of the window buffer
IMAGE = "image"
Size = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Task:
    """A step whose maps lie at named places; "" is none.

    layer : whose numbers it makes. work : what it does; None for the 8-bit stem and the head.
    inside, size : of the maps it reads and leaves. offset : output channel on which the first of
    a moved stream lands. contents : words for the weight buffer.
    strip : the first column of blocks and how many, if it makes not all of a map.
    """

    layer: str
    work: Pass | None
    inside: Size
    size: Size
    contents: np.ndarray
    features: str
    operand: str = ""
    adds: str = ""
    bits: str = ""
    residual: str = ""
    offset: int = 0
    strip: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The layer's, and what tells the pass from its others."""
        return f"{self.layer}.{self.work.name}" if self.work and self.work.name else self.layer


def image_strips(network: IntegerNetwork) -> list[tuple[int, int]]:
    """First column of blocks, and their number, of each strip in which a thermometer's bits are
    convolved: as wide as, with a column on either side, the window buffer holds. All are alike."""
    spec, levels = network.spec, network.stem.levels
    if levels is None:
        return []
    columns = layout.blocks(*spec.input[:2])[1]
    room = max(1, WINDOW_GROUPS // image_groups(network) - 2)
    count = -(-columns // room)
    wide = -(-columns // count)
    return [(min(at * wide, columns - wide), wide) for at in range(count)]


def image_groups(network: IntegerNetwork) -> int:
    """Groups of 16 bits that are stored of a pixel; 0 if its bytes are."""
    levels = network.stem.levels
    return 0 if levels is None else network.spec.input[2] * layout.groups(len(levels))


class Schedule:
    """tasks : every step in order. places : size in words by name. `width` of slots in bits.
    factors : words of spatial factors by name, constants in places of their own.

    Bits and residuals each alternate between two places (bits one a threshold): a pass that
    changes the stream's shape writes to the other, and a layer writes its bits to the other.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self.network, self.spec = network, network.spec
        wide = needs_passes(network)
        self.width = 16 if wide else network.spec.formats.residual_width
        self._bits, self._stream = 0, 0
        self.factors: dict[str, np.ndarray] = {}
        self.tasks = [*self._stem(), *self._body(), *self._head()]
        self.places = self._places()

    def _residuals(self, kind: str | None) -> str:
        if kind is None:
            return ""
        return f"residuals {self._stream if kind == STREAM else 1 - self._stream}"

    def _bit_map(self, bit: int, turn: int) -> str:
        return "signs" if bit == SIGNS else f"bits {turn * self.spec.repair.features + bit}"

    def _stem(self) -> Iterator[Task]:
        (height, width, _), part = self.spec.input, self.network.stem
        size = (height, width, self.spec.widths[0])
        if part.levels is None:
            yield Task(
                "stem", None, self.spec.input, size, entries.stem_entries(part), IMAGE,
                bits=self._bit_map(0, self._bits), residual=self._residuals(STREAM),
            )  # fmt: skip
            return
        work = stem(part, part.levels)
        inside = (height, width, GROUP * image_groups(self.network))
        task = replace(self._task("stem", work, inside, size, self._bits), features=IMAGE)
        *strips, last = image_strips(self.network)
        for at, strip in enumerate(strips):
            yield replace(task, work=replace(work, name=f"strip{at}"), strip=strip)
        yield replace(task, strip=last) if strips else task

    def _body(self) -> Iterator[Task]:
        convolutions, stem = self.network.convolutions, self.network.stem.requantiser
        height, width, _ = self.spec.input
        size = (height, width, self.spec.widths[0])
        for work in further_bits(stem, STREAM, self.spec.repair.features):
            yield self._task("stem", work, size, size, self._bits)
        wide, thresholds = False, stem.threshold
        for conv, after in zip(convolutions, (*convolutions[1:], None), strict=True):
            if moves_first(conv, self.spec.repair):
                adder = conv if conv.shape.shortcut or after is None else after
                yield from self._moved(conv, adder, thresholds)
                wide = adder.shortcut is not None or averages(adder, self.spec.repair)
            works = convolution_passes(
                conv, self.spec.formats, wide=wide, features=self.spec.repair.features * bool(after)
            )
            yield from (self._shaped(conv, work) for work in works)
            self._bits = 1 - self._bits
            if conv.shape.shortcut:
                wide = False
            if conv.requantiser is not None:
                thresholds = conv.requantiser.threshold

    def _moved(self, conv: IntegerConvolution, adder: IntegerConvolution,
               thresholds: np.ndarray) -> Iterator[Task]:  # fmt: skip
        """adder : where the stream is added. thresholds : of the bits at hand, which are the
        stream's signs if all are zero."""
        part, feature = adder.shortcut, 0
        if part is not None and part.binary and thresholds.any():
            shape, feature = conv.shape, SIGNS
            inside = (shape.height, shape.width, shape.in_channels)
            yield self._task(shape.name, signs(shape.in_channels), inside, inside, self._bits)
        mean = averages(adder, self.spec.repair)
        yield self._shaped(conv, move(conv, part, feature, mean=mean))

    def _shaped(self, conv: IntegerConvolution, work: Pass) -> Task:
        """A pass of a convolution: all but the first to use its input stay at its output."""
        shape = conv.shape
        size = (shape.out_height, shape.out_width, shape.out_channels)
        before = work.weights is not None or work.moves
        inside = (shape.height, shape.width, shape.in_channels) if before else size
        offset = shape.shortcut_offset if work.moves and not work.mean else 0
        return self._task(shape.name, work, inside, size, 1 - self._bits, offset)

    def _task(
        self, layer: str, work: Pass, inside: Size, size: Size, turn: int, offset: int = 0
    ) -> Task:
        """turn : which places its bits go to."""
        stream, adds = self._residuals(STREAM), self._residuals(work.adds)
        if work.moves:
            self._stream = 1 - self._stream
        features = self._bit_map(work.feature, self._bits)
        if work.kind == "pointwise":
            features = stream
            contents = entries.pointwise_entries(work.weights, work.part)
        elif work.weights is None:
            contents = entries.scale_entries(work.part, work.act, work.folds)
        else:
            contents = entries.convolution_entries(work.weights, work.part)
        if work.factors is not None:
            features = f"factors {layer}"
            self.factors[features] = layout.pack_factors(work.factors)
        return Task(
            layer, work, inside, size, contents, features, self._residuals(work.operand), adds,
            "" if work.emits is None else self._bit_map(work.emits, turn),
            self._residuals(work.keeps), offset,
        )  # fmt: skip

    def _head(self) -> Iterator[Task]:
        """As many steps as the head's weights need."""
        last = self.spec.convolutions()[-1]
        inside = (last.out_height, last.out_width, last.out_channels)
        parts = entries.head_entries(self.network.head, WEIGHT_DEPTH)
        for index, contents in enumerate(parts):
            name = "head" if len(parts) == 1 else f"head.{index}"
            features = self._residuals(STREAM)
            yield Task(name, None, inside, (1, 1, self.spec.classes), contents, features)

    def _places(self) -> dict[str, int]:
        height, width, _ = self.spec.input
        bits = layout.bit_words(height, width, GROUP * image_groups(self.network))
        places = {IMAGE: bits or height * width}
        for task in self.tasks:
            for place, words in (
                (task.bits, layout.bit_words(*task.size)),
                (task.residual, layout.residual_words(*task.size, self.width)),
            ):
                if place:
                    places[place] = max(places.get(place, 0), words)
        return dict(sorted(places.items(), key=lambda place: (place[0] != IMAGE, place[0])))
