"""IntegerNetwork -> the steps of its program in order, and the places in memory they use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bnnhw.compiler import allocation, entries, layout
from bnnhw.compiler.entries import ONE
from bnnhw.compiler.layout import GROUP
from bnnhw.compiler.passes import (
    HIDDEN,
    SIGNS,
    STREAM,
    SUMS,
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
from bnnhw.gateware.parameters import ArrayShape
from bnnhw.network.integer import IntegerConvolution, IntegerNetwork

IMAGE = "image"
Size = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Task:
    """A step whose maps lie at named places; "" is none.

    layer : whose numbers it makes. work : what it does; None for the 8-bit stem and the head.
    inside, size : of the maps it reads and leaves. offset : output channel on which the first of
    a moved stream lands. contents : words for the weight buffer,
    `entry_rows` of each entry. rows : of blocks of its input; other tasks have the others.
    upper : which bytes its factors are. slope_folds : entries for each that has slopes; 0: none.
    tile : groups of 16 channels that it makes, if it makes not all.
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
    entry_rows: range = range(3)
    rows: range = range(0)
    upper: bool = False
    slope_folds: int = 0
    tile: range | None = None

    @property
    def entries(self) -> int:
        """Entries of the weight buffers that `contents` are for, of all channels in parallel."""
        if not self.slope_folds:
            return len(self.contents) // len(self.entry_rows)
        return len(self.contents) * self.slope_folds // (3 * self.slope_folds + 1)

    @property
    def name(self) -> str:
        """The layer's, and what tells the pass, and all strips but the last, from its others."""
        name = f"{self.layer}.{self.work.name}" if self.work and self.work.name else self.layer
        if self.beside and self.tile:
            return f"{name}.channels{GROUP * self.tile.start}"
        return f"{name}.rows{self.rows.start}" if self.below else name

    @property
    def gives_logits(self) -> bool:
        """Whether it is of the head."""
        return self.work is None and self.layer.startswith("head")

    @property
    def first_group(self) -> int:
        """The first group of channels that it makes."""
        return 0 if self.tile is None else self.tile.start

    @property
    def beside(self) -> bool:
        """Whether the map has channels above its tile's."""
        return self.tile is not None and self.tile.stop < layout.groups(self.size[2])

    @property
    def below(self) -> bool:
        """Whether the map goes on below its rows."""
        return bool(self.rows) and self.rows.stop < layout.blocks(*self.inside[:2])[0]


def image_strips(network: IntegerNetwork, shape: ArrayShape) -> list[tuple[int, int]]:
    """First column of blocks, and their number, of each strip in which a thermometer's bits are
    convolved: as wide as, with a column on either side, the window buffer holds. All are alike."""
    spec, levels = network.spec, network.stem.levels
    if levels is None:
        return []
    columns = layout.blocks(*spec.input[:2])[1]
    room = max(1, shape.window_groups // image_groups(network) - 2)
    count = -(-columns // room)
    wide = -(-columns // count)
    return [(min(at * wide, columns - wide), wide) for at in range(count)]


def image_groups(network: IntegerNetwork) -> int:
    """Groups of 16 bits that are stored of a pixel; 0 if its bytes are."""
    levels = network.stem.levels
    return 0 if levels is None else network.spec.input[2] * layout.groups(len(levels))


def _slopes(network: IntegerNetwork) -> entries.Slopes:
    """What lanes multiply by and add where no activation says so.

    An RPReLU has a constant of its own for each channel, however it was trained.
    """
    formats = network.spec.formats
    rounding = 1 << (formats.guard - 1)
    acts = [conv.after for conv in network.convolutions if conv.after is not None]
    plain = [network.stem.requantiser.bias]
    plain += [
        conv.requantiser.bias
        for conv in network.convolutions
        if conv.requantiser is not None and conv.after is None
    ]
    own = network.spec.repair.activation == "rprelu"
    own |= any((act.shift_out != rounding).any() for act in acts)
    low = any(bias.min() - rounding < -(1 << 15) for bias in plain)
    one = 1 << (formats.scale_fraction - formats.guard)
    return entries.Slopes(one, rounding, own or low)


class Schedule:
    """shape : of the array. per_word : channels in a word of the residual stream.
    tasks : every step in order. places : size in words by name. `width` of slots in bits.
    factors : words of spatial factors by name, constants in places of their own.
    thresholds : whether any bit is compared with other than zero. slopes : what the lanes multiply
    by where there is no activation; None: nothing, as where the argument `slopes` says that they
    have no memories for them: then an activation is a pass.

    Bits and residuals each alternate between two places (bits one a threshold): a pass that
    changes the stream's shape writes to the other, and a layer writes its bits to the other.
    Where sums lie beside the stream in the first stage, whose maps are the largest, a
    convolution without a gate takes its passes a strip of rows after the other, `strips` in all:
    the sums then need room for one. Where maps are to be `shared` out anew over the memory, each
    size of map has places of its own.
    """

    def __init__(
        self, network: IntegerNetwork, strips: int = 1, *, shared: bool = False,
        slopes: bool = True, shape: ArrayShape = ONE,
    ) -> None:  # fmt: skip
        self.network, self.spec, self._strips = network, network.spec, strips
        self.shape = shape
        convolutions = (conv.requantiser for conv in network.convolutions)
        parts = [network.stem.requantiser, *(part for part in convolutions if part is not None)]
        self.thresholds = any(part.threshold.any() for part in parts)
        self.passes = needs_passes(network, slopes=slopes)
        acts = any(conv.after is not None for conv in network.convolutions)
        self.slopes = _slopes(network) if acts and not self.passes else None
        self.width = 16 if self.passes else network.spec.formats.residual_width
        self.per_word = shape.word_channels(layout.slot_width(self.width))
        self._bits, self._stream = 0, 0
        self.factors: dict[str, np.ndarray] = {}
        self._lower: dict[tuple[int, ...], str] = {}  # factors whose upper bytes are free, by size
        self.tasks = [*self._stem(), *self._body(), *self._head()]
        if shared:
            self.tasks = list(allocation.separate(self.tasks))
        self.places = self._places()

    def _residuals(self, kind: str | None) -> str:
        if kind not in (STREAM, SUMS):
            return HIDDEN if kind == HIDDEN else ""
        return f"residuals {self._stream if kind == STREAM else 1 - self._stream}"

    def _bit_map(self, bit: int, turn: int) -> str:
        return "signs" if bit == SIGNS else f"bits {turn * self.spec.repair.features + bit}"

    def _stem(self) -> Iterator[Task]:
        (height, width, _), part = self.spec.input, self.network.stem
        size = (height, width, self.spec.stem_channels)
        if part.levels is None:
            yield Task(
                "stem", None, self.spec.input, size,
                entries.stem_entries(part, self.slopes, self.shape), IMAGE,
                bits=self._bit_map(0, self._bits),
                residual=self._residuals(STREAM), slope_folds=int(self.slopes is not None),
            )  # fmt: skip
            return
        work = stem(part, part.levels)
        inside = (height, width, GROUP * image_groups(self.network))
        task = replace(self._task("stem", work, inside, size, self._bits), features=IMAGE)
        *strips, last = image_strips(self.network, self.shape)
        for at, strip in enumerate(strips):
            yield replace(task, work=replace(work, name=f"strip{at}"), strip=strip)
        yield replace(task, strip=last) if strips else task

    def _body(self) -> Iterator[Task]:
        convolutions, stem = self.network.convolutions, self.network.stem.requantiser
        height, width, _ = self.spec.input
        size = (height, width, self.spec.stem_channels)
        for work in further_bits(stem, STREAM, self.spec.repair.features):
            yield self._task("stem", work, size, size, self._bits)
        thresholds = stem.threshold
        for conv, after in zip(convolutions, (*convolutions[1:], None), strict=True):
            moved = moves_first(conv, self.spec.repair)
            if moved:
                adder = conv if conv.shape.shortcut or after is None else after
                yield from self._moved(conv, adder, thresholds)
            features = self.spec.repair.features * bool(after)
            passes = convolution_passes(
                conv, self.spec.formats, moved=moved, features=features,
                mean=averages(conv, self.spec.repair), slopes=self.slopes is not None,
            )  # fmt: skip
            yield from self._in_strips(conv, list(passes))
            self._bits = 1 - self._bits
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

    def _in_strips(self, conv: IntegerConvolution, works: list[Pass]) -> Iterator[Task]:
        """Whether whole or in strips, bits come from a map that the passes do not write."""
        if conv.gate is not None:  # which needs all sums
            for work in works:
                make = self._layer if work.kind == "layer" else self._shaped
                yield make(conv, work)
            return
        tasks = [self._shaped(conv, work) for work in works]
        first_stage = conv.shape.stride == 1 and tasks[0].inside[:2] == self.spec.input[:2]
        if not first_stage or all(work.keeps != SUMS for work in works):
            for task in tasks:
                yield from self._tiled(task)
            return
        rows = tasks[0].rows.stop
        strip = -(-rows // self._strips)
        for first in range(0, rows, strip):
            some = range(first, min(first + strip, rows))
            yield from (replace(task, rows=some) for task in tasks)

    def _tiled(self, task: Task) -> Iterator[Task]:
        """Whole, or in tiles of channels whose weights fit half the weight buffer, so that one's
        are loaded while another is made."""
        work, half = task.work, self.shape.step_depth * self.shape.pe
        whole = work is None or work.kind != "conv" or work.moves or work.strided or self.passes
        if whole or task.entries <= half:
            yield task
            return
        assert work is not None
        out = layout.groups(task.size[2])
        each = max(1, half // (GROUP * work.folds))
        for first in range(0, out, each):
            tile = range(first, min(first + each, out))
            part = work.of_channels(slice(GROUP * tile.start, GROUP * tile.stop))
            assert part.weights is not None
            contents = entries.convolution_entries(
                part.weights, part.part, self.slopes, part.act, self.shape.pe
            )
            yield replace(task, work=part, contents=contents, tile=tile if out > each else None)

    def _shaped(self, conv: IntegerConvolution, work: Pass) -> Task:
        """A pass of a convolution: all but the first to use its input stay at its output."""
        shape = conv.shape
        size = (shape.out_height, shape.out_width, shape.out_channels)
        before = work.weights is not None or work.moves
        inside = (shape.height, shape.width, shape.in_channels) if before else size
        offset = shape.shortcut_offset if work.moves and not work.mean else 0
        return self._task(shape.name, work, inside, size, 1 - self._bits, offset)

    def _layer(self, conv: IntegerConvolution, work: Pass) -> Task:
        """A gate's layer: of the sums' map, or of one block."""
        shape, weights = conv.shape, work.weights
        assert weights is not None
        outputs, inputs = weights.shape
        inside = (1, 1, inputs)
        if work.operand == SUMS:
            inside = (shape.out_height, shape.out_width, inputs)
        return Task(
            shape.name, work, inside, (1, 1, outputs), entries.layer_entries(weights, work.part),
            self._residuals(work.operand), residual=self._residuals(work.keeps),
            entry_rows=range(2),
        )  # fmt: skip

    def _task(
        self, layer: str, work: Pass, inside: Size, size: Size, turn: int, offset: int = 0
    ) -> Task:
        """turn : which places its bits go to."""
        stream, adds = self._residuals(STREAM), self._residuals(work.adds)
        if work.moves:
            self._stream = 1 - self._stream
        features, upper, entry_rows = self._bit_map(work.feature, self._bits), False, range(3)
        if work.kind == "pointwise":
            features = stream
            assert work.weights is not None
            contents = entries.pointwise_entries(work.weights, work.part)
        elif work.weights is None:
            if self.passes:
                entry_rows = range(int(work.factors is not None), 2 + self.thresholds)
            contents = entries.scale_entries(
                work.part, work.act, entry_rows, self.slopes, self.shape.pe
            )
        else:
            contents = entries.convolution_entries(
                work.weights, work.part, self.slopes, work.act, self.shape.pe
            )
        if work.factors is not None:
            features, upper = self._factors(layer, work.factors)
        return Task(
            layer, work, inside, size, contents, features, self._residuals(work.operand), adds,
            "" if work.emits is None else self._bit_map(work.emits, turn),
            self._residuals(work.keeps), offset, entry_rows=entry_rows, upper=upper,
            rows=range(layout.blocks(*inside[:2])[0]),
            slope_folds=work.folds if self.slopes else 0,
        )  # fmt: skip

    def _factors(self, layer: str, factors: np.ndarray) -> tuple[str, bool]:
        """Where a convolution's factors lie, and whether in the upper bytes of another's."""
        words, size = layout.pack_factors(factors), factors.shape
        place = self._lower.pop(size, "")
        if place:
            self.factors[place] |= words << np.uint64(8)
            return place, True
        self._lower[size] = place = f"factors {layer}"
        self.factors[place] = words
        return place, False

    def _head(self) -> Iterator[Task]:
        """As many steps as the head's weights need."""
        last = self.spec.convolutions()[-1]
        inside = (last.out_height, last.out_width, last.out_channels)
        slopes, alone = self.slopes is not None, self.shape.pe > 1
        parts = entries.head_entries(self.network.head, self.shape, slopes=slopes)
        for index, contents in enumerate(parts):
            name = "head" if len(parts) == 1 else f"head.{index}"
            features = self._residuals(STREAM)
            yield Task(
                name, None, inside, (1, 1, self.spec.classes), contents, features,
                entry_rows=range(1) if alone else range(3),
                slope_folds=entries.HEAD_FOLDS * (slopes and not alone),
            )  # fmt: skip

    def _places(self) -> dict[str, int]:
        height, width, _ = self.spec.input
        bits = layout.bit_words(height, width, GROUP * image_groups(self.network))
        sizes = {IMAGE: bits or height * width}
        for task in self.tasks:
            for place, words in (
                (task.bits, layout.bit_words(*task.size)),
                (task.residual, self._residual_words(task)),
            ):
                if place:
                    sizes[place] = max(sizes.get(place, 0), words)
        return dict(sorted(sizes.items(), key=lambda place: (place[0] != IMAGE, place[0])))

    def _residual_words(self, task: Task) -> int:
        """Words that it leaves, or, of sums in strips, that its strip does."""
        height, width, channels = task.size
        if task.work is not None and task.work.keeps == SUMS:
            height = min(height, 2 * len(task.rows))
        return layout.residual_words(height, width, channels, self.per_word)
