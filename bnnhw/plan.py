"""IntegerNetwork + board -> program, memory map and boot image of an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bnnhw import entries, layout
from bnnhw.errors import UserError
from bnnhw.estimate import StepCycles, convolution_cycles, head_cycles, stem_cycles
from bnnhw.integer import IntegerConvolution, IntegerNetwork
from bnnhw.layout import GROUP, groups
from bnnhw.spec import Repair
from boards.board import Board
from gateware.parameters import EngineParameters
from gateware.program import DESCRIPTOR_WORDS, Geometry, Kind, Sinks, Sources

WINDOW_DEPTH = 256
WEIGHT_DEPTH = 256
WINDOW_ROWS = 4
RUNS = dict(
    binary_sets=("symmetric",),
    scaling=("none", "channel-mean", "channel-learned"),
    ensemble=("none",),
    activation=("none",),
    squeeze_excitation=("none",),
    downsample=("pad",),
    stem=("8-bit",),
)  # the methods that add to the hardware, and what the engine has of them


@dataclass(frozen=True)
class Resource:
    """What a network needs of something, what there is, and what makes a smaller need."""

    name: str
    used: int
    available: int
    remedy: str

    @property
    def fits(self) -> bool:
        return self.used <= self.available


class DoesNotFit(UserError):
    """A network needs more than the board has; `resources` is the whole table."""

    def __init__(self, board: str, resources: tuple[Resource, ...]) -> None:
        self.resources = resources
        missing = [part for part in resources if not part.fits]
        needs = "; ".join(
            f"{part.name}: needs {part.used}, has {part.available} ({part.remedy})"
            for part in missing
        )
        super().__init__(f"the network does not fit {board}: {needs}")


@dataclass(frozen=True)
class Map:
    """A feature map in memory: where, and its true size."""

    address: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Step:
    """A step of the program.

    kind : stem, convolution, shortcut (moves the residual stream to the next stage) or head.
    bits, residual : what the step leaves in memory under the golden's names, if anything.
    """

    name: str
    kind: str
    words: tuple[int, ...]
    cycles: StepCycles
    bits: Map | None = None
    residual: Map | None = None


@dataclass(frozen=True)
class Plan:
    """Everything the hardware needs to run one network on one board."""

    parameters: EngineParameters
    image_base: int
    image: np.ndarray
    steps: tuple[Step, ...]
    resources: tuple[Resource, ...]
    residual_width: int
    memory_map: tuple[tuple[str, int, int], ...]

    def tensors(self, step_index: int, memory: np.ndarray) -> dict[str, np.ndarray]:
        """The maps that step `step_index` has left in memory, uint64 (words,), by tap name.

        Arrays are (H, W, C) as the golden's, bits uint8 and residuals int32.
        """
        step = self.steps[step_index]
        result: dict[str, np.ndarray] = {}
        for kind, place in (("residual", step.residual), ("bits", step.bits)):
            if place is None:
                continue
            size = (place.height, place.width, place.channels)
            if kind == "bits":
                words = memory[place.address :][: layout.bit_words(*size)]
                array = layout.unpack_bits(words, *size)
            else:
                count = layout.residual_words(*size, self.residual_width)
                array = layout.unpack_residuals(
                    memory[place.address :][:count], *size, self.residual_width
                )
            result[f"{step.name}.{kind}"] = array
        return result


@dataclass
class _Memory:
    """Addresses of the maps. Bits and residuals each alternate between two places."""

    network: IntegerNetwork
    weights: int
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.network.spec
        height, width, _ = spec.input
        sizes = [(height, width, spec.widths[0])]
        sizes += [(c.out_height, c.out_width, c.out_channels) for c in spec.convolutions()]
        bits = max(layout.bit_words(*size) for size in sizes)
        stream = [layout.residual_words(*size, spec.formats.residual_width) for size in sizes]
        moved = [size for size, before in zip(stream[1:], stream, strict=False) if size != before]
        address = self.weights
        for name, size in (
            ("image", height * width),
            ("bits 0", bits),
            ("bits 1", bits),
            ("residuals 0", max(stream)),
            ("residuals 1", max(moved, default=0)),
        ):
            self.places[name] = (address, size)
            address += size
        self.end = address

    def __getitem__(self, name: str) -> int:
        return self.places[name][0]


def _descriptor(geometry: dict, sources: dict, sinks: dict) -> tuple[int, ...]:
    return tuple(
        kind.const(fields).as_value().value
        for kind, fields in ((Geometry, geometry), (Sources, sources), (Sinks, sinks))
    )


class _Program:
    """Collects steps while the maps move through the memory."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.spec = network.spec
        self.width = network.spec.formats.residual_width
        self.per_word = layout.word_channels(self.width)
        self.contents = self._contents()
        self.steps: list[Step] = []
        program = DESCRIPTOR_WORDS * len(self.contents)
        self.weights_at = [program]
        for words in self.contents:
            self.weights_at.append(self.weights_at[-1] + len(words))
        self.memory = _Memory(network, self.weights_at[-1])
        self.bits, self.stream = 0, 0

    def _contents(self) -> list[np.ndarray]:
        network = self.network
        result = [entries.stem_entries(network.stem)]
        for conv in network.convolutions:
            if self._moves_alone(conv):
                result.append(entries.shortcut_entries(conv.shape.out_channels))
            result.append(entries.convolution_entries(conv, self.spec.formats))
        return [*result, *entries.head_entries(network.head, WEIGHT_DEPTH)]

    def _moves_alone(self, conv: IntegerConvolution) -> bool:
        """Whether a step moves the stream to the next stage before this convolution."""
        shape = conv.shape
        return not shape.shortcut and (shape.stride > 1 or shape.in_channels != shape.out_channels)

    def _sources(self, **addresses: int) -> dict[str, int]:
        index = len(self.steps)
        return dict(
            weights=self.weights_at[index], weight_words=len(self.contents[index]), **addresses
        )

    def stem(self) -> None:
        height, width, channels = self.spec.input
        out = self.spec.widths[0]
        bits, stream = self.memory["bits 0"], self.memory["residuals 0"]
        words = _descriptor(
            dict(kind=Kind.STEM, single=1, keep=1, emit=1, columns=width - 1, rows=height - 1,
                 groups=groups(out) - 1),
            self._sources(features=self.memory["image"]),
            dict(bits=bits, residual=stream),
        )  # fmt: skip
        cycles = stem_cycles(height, width, channels, out, len(self.contents[0]))
        size = (height, width, out)
        self.steps.append(Step("stem", "stem", words, cycles, Map(bits, *size), Map(stream, *size)))

    def convolution(self, conv: IntegerConvolution, final: bool) -> None:
        if self._moves_alone(conv):
            self._step(conv, alone=True, final=False)
        self._step(conv, alone=False, final=final)

    def _step(self, conv: IntegerConvolution, *, alone: bool, final: bool) -> None:
        shape = conv.shape
        adds = alone or shape.shortcut
        keeps = adds
        source = self.stream
        moves = adds and (shape.stride > 1 or shape.in_channels != shape.out_channels)
        if moves:
            self.stream = 1 - self.stream
        emits = not alone and not final
        features = self.memory[f"bits {self.bits}"]
        if emits:
            self.bits = 1 - self.bits
        bits, stream = self.memory[f"bits {self.bits}"], self.memory[f"residuals {self.stream}"]
        rows, columns = layout.blocks(shape.height, shape.width)
        folds = 1 if alone else groups(shape.in_channels)
        first = shape.shortcut_offset if moves else 0
        moved = shape.in_channels if moves else shape.out_channels
        geometry = dict(
            kind=Kind.CONV, single=shape.stride - 1, add=adds, keep=keeps, emit=emits,
            mask=self.spec.repair.padding == "zero", columns=columns - 1, rows=rows - 1,
            odd_columns=shape.width % 2, odd_rows=shape.height % 2, folds=folds - 1,
            groups=groups(shape.out_channels) - 1, shortcut_first=first // self.per_word,
            shortcut_end=(first + GROUP * groups(moved)) // self.per_word,
        )  # fmt: skip
        words = _descriptor(
            geometry,
            self._sources(features=features, shortcut=self.memory[f"residuals {source}"]),
            dict(bits=bits, residual=stream),
        )
        cycles = convolution_cycles(
            rows, columns, folds, groups(shape.out_channels), reads=adds, writes=keeps,
            per_word=self.per_word, single=shape.stride > 1,
            weight_words=len(self.contents[len(self.steps)]),
        )  # fmt: skip
        size = (shape.out_height, shape.out_width, shape.out_channels)
        name, kind = (f"{shape.name}.shortcut", "shortcut") if alone else (shape.name, "conv")
        self.steps.append(
            Step(
                name, kind, words, cycles,
                Map(bits, *size) if emits else None,
                Map(stream, *size) if keeps and not alone else None,
            )
        )  # fmt: skip

    def head(self) -> None:
        """As many steps as the head's weights need."""
        last = self.spec.convolutions()[-1]
        size = (last.out_height, last.out_width, last.out_channels)
        count = layout.residual_words(*size, self.width)
        entries_per_quad = GROUP * groups(last.out_channels) + 1
        first, total = len(self.steps), len(self.contents)
        for index in range(first, total):
            weight_words = len(self.contents[index])
            quads = weight_words // 3 // entries_per_quad
            words = _descriptor(
                dict(kind=Kind.HEAD, last=index == total - 1, columns=quads - 1,
                     groups=groups(last.out_channels) - 1),
                self._sources(features=self.memory[f"residuals {self.stream}"]),
                dict(head_words=count - 1),
            )  # fmt: skip
            cycles = head_cycles(count, self.per_word, quads, weight_words)
            name = "head" if total - first == 1 else f"head.{index - first}"
            self.steps.append(Step(name, "head", words, cycles))


def _parameters(network: IntegerNetwork) -> EngineParameters:
    spec, formats = network.spec, network.spec.formats
    convolutions = spec.convolutions()
    folds = max(groups(conv.in_channels) for conv in convolutions)
    sizes = {size for conv in convolutions for size in (conv.height, conv.width)}
    parts = [network.stem.requantiser]
    parts += [conv.requantiser for conv in network.convolutions if conv.requantiser is not None]
    height, width, channels = spec.input
    return EngineParameters(
        residual_width=formats.residual_width,
        guard=formats.guard,
        shift=formats.scale_fraction - formats.guard,
        acc_width=(72 * folds).bit_length() + 1,
        thresholds=any(part.threshold.any() for part in parts),
        minus_one=spec.repair.padding == "minus-one",
        odd_maps=any(size % 2 for size in sizes),
        image_height=height,
        image_width=width,
        image_channels=channels,
        pre_shift=network.stem.pre_shift,
        bias_shift=network.head.bias_shift,
        classes=spec.classes,
        window_depth=WINDOW_DEPTH,
        weight_depth=WEIGHT_DEPTH,
    )


def _logit_bits(network: IntegerNetwork) -> int:
    """Signed bits that hold any logit, whatever the image."""
    last = network.spec.convolutions()[-1]
    pixels = last.out_height * last.out_width
    weights = np.abs(network.head.weights.astype(np.int64)).sum(axis=1)
    bias = np.abs(network.head.bias_mantissa.astype(np.int64)) << network.head.bias_shift
    top = weights * pixels << (network.spec.formats.residual_width - 1)
    return int((top + bias).max()).bit_length() + 1


def _resources(program: _Program, board: Board) -> tuple[Resource, ...]:
    network = program.network
    convolutions = network.spec.convolutions()
    columns = max(
        (layout.blocks(conv.height, conv.width)[1] + 2) * groups(conv.in_channels)
        for conv in convolutions
    )
    widest = max(len(words) // 3 for words in program.contents)
    thresholds = _parameters(network).thresholds
    return (
        Resource("memory (64-bit words of SPRAM)", program.memory.end, board.memory_words,
                 "fewer or narrower layers, a smaller image or residual width"),
        Resource("weight buffer (entries of a layer)", widest, WEIGHT_DEPTH,
                 "narrower stages: out_channels * in_channels / 16 at most 256"),
        Resource("window buffer (groups in a row of blocks)", columns, WINDOW_DEPTH // WINDOW_ROWS,
                 "a narrower image or narrower stages"),
        Resource("program (steps)", len(program.contents), 255, "a shallower network"),
        Resource("accumulator (bits of a logit)", _logit_bits(network), 32,
                 "a smaller residual width or last feature map"),
        Resource("block RAM (EBR)", 27 + thresholds, board.budget.ebr, "another board"),
        Resource("multipliers (DSP)", 8, board.budget.dsp, "another board"),
        Resource("folds of a layer", max(groups(conv.in_channels) for conv in convolutions), 16,
                 "stages of at most 256 channels"),
    )  # fmt: skip


def check_methods(repair: Repair) -> None:
    """UserError unless the engine can run networks of these repair methods."""
    for name, values in RUNS.items():
        value = getattr(repair, name)
        if value not in values:
            raise UserError(
                f"{name}={value}: the engine has no such part yet; use {name}={' or '.join(values)}"
            )


def make_plan(network: IntegerNetwork, board: Board) -> Plan:
    """Lay a network out for the engine on `board`.

    Raises UserError for a method that the engine cannot run, DoesNotFit, with the whole resource
    table, if anything is too large.
    """
    check_methods(network.spec.repair)
    program = _Program(network)
    resources = _resources(program, board)
    if not all(part.fits for part in resources):
        raise DoesNotFit(board.name, resources)
    program.stem()
    for conv in network.convolutions:
        program.convolution(conv, final=conv is network.convolutions[-1])
    program.head()
    descriptors = [np.array(step.words, np.uint64) for step in program.steps]
    return Plan(
        parameters=_parameters(network),
        image_base=program.memory["image"],
        image=np.concatenate([*descriptors, *program.contents]),
        steps=tuple(program.steps),
        resources=resources,
        residual_width=program.width,
        memory_map=(
            ("program", 0, DESCRIPTOR_WORDS * len(program.steps)),
            ("weights", program.weights_at[0], program.weights_at[-1] - program.weights_at[0]),
            *((name, *place) for name, place in program.memory.places.items()),
        ),
    )
