"""IntegerNetwork -> the steps of its program in order, and the places in memory they use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnnhw import entries, layout
from bnnhw.integer import IntegerConvolution, IntegerNetwork
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
)

WEIGHT_DEPTH = 256
IMAGE = "image"
Size = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Task:
    """A step whose maps lie at named places; "" is none.

    layer : whose numbers it makes. work : what it does; None for the stem and the head.
    inside, size : of the maps it reads and leaves. offset : output channel on which the first of
    a moved stream lands. contents : words for the weight buffer.
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

    @property
    def name(self) -> str:
        """The layer's, and what tells the pass from its others."""
        return f"{self.layer}.{self.work.name}" if self.work and self.work.name else self.layer


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
        self.tasks = [self._stem(), *self._body(), *self._head()]
        self.places = self._places()

    def _residuals(self, kind: str | None) -> str:
        if kind is None:
            return ""
        return f"residuals {self._stream if kind == STREAM else 1 - self._stream}"

    def _bit_map(self, bit: int, turn: int) -> str:
        return "signs" if bit == SIGNS else f"bits {turn * self.spec.repair.features + bit}"

    def _stem(self) -> Task:
        height, width, _ = self.spec.input
        return Task(
            "stem", None, self.spec.input, (height, width, self.spec.widths[0]),
            entries.stem_entries(self.network.stem), IMAGE, bits=self._bit_map(0, self._bits),
            residual=self._residuals(STREAM),
        )  # fmt: skip

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
        if part is not None and thresholds.any():
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
        adds = self._residuals(work.adds)
        if work.moves:
            self._stream = 1 - self._stream
        if work.weights is None:
            contents = entries.scale_entries(work.part, work.act, work.folds)
        else:
            contents = entries.convolution_entries(work.weights, work.part)
        features = self._bit_map(work.feature, self._bits)
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
        places = {IMAGE: height * width}
        for task in self.tasks:
            for place, words in (
                (task.bits, layout.bit_words(*task.size)),
                (task.residual, layout.residual_words(*task.size, self.width)),
            ):
                if place:
                    places[place] = max(places.get(place, 0), words)
        return dict(sorted(places.items(), key=lambda place: (place[0] != IMAGE, place[0])))
