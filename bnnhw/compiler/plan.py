"""IntegerNetwork + board -> program, memory map and boot image of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np

from bnnhw.boards.numbers import NIBBLE, Board, Memories
from bnnhw.compiler import layout
from bnnhw.compiler.contract import check_contract
from bnnhw.compiler.layout import groups
from bnnhw.compiler.passes import averages, needs_passes
from bnnhw.compiler.program import Program, Step
from bnnhw.compiler.schedule import image_groups, image_strips
from bnnhw.compiler.stream import WordStream
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import (
    ADDRESS_WIDTH,
    GROUP,
    LANES,
    TAPS,
    WORD_WIDTH,
    ArrayShape,
    EngineParameters,
)
from bnnhw.gateware.program import DESCRIPTOR_WORDS, WALK_WIDTH
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.repair import Repair
from bnnhw.network.spec import thermometer_levels

STRIPS = (1, 2, 4)  # of the first stage's rows, tried in turn until the maps fit
RUNS = dict(
    scaling=("none", "channel-mean", "channel-learned", "spatial"),
    downsample=("pad", "avgpool-duplicate", "conv1x1-binary", "conv1x1-8bit"),
    stem=("8-bit", "thermometer"),
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
class Plan:
    """Everything the hardware needs to run one network on one board.

    image : what is in the memory before the first frame. words : program and weights, where they
    are a stream of words; then `image` is empty.
    """

    network: IntegerNetwork
    parameters: EngineParameters
    image_base: int
    image: np.ndarray
    steps: tuple[Step, ...]
    resources: tuple[Resource, ...]
    slot_width: int
    memory_map: tuple[tuple[str, int, int], ...]
    memory_words: int
    stream_map: tuple[tuple[str, int, int], ...] = ()
    stream_words: int = 0
    words: WordStream | None = None

    @property
    def memories(self) -> Memories:
        """The engine's memories."""
        return Memories(self.memory_words, self.stream_words, self.parameters.slot_width)

    @property
    def cycles(self) -> int:
        """Cycles of an image, as the steps' add up."""
        return sum(step.cycles.total for step in self.steps)

    @property
    def link_share(self) -> float:
        """The part of these in which the stream brings a nibble; 0 where there is none."""
        return self.words.nibbles / self.cycles if self.words is not None else 0.0

    def tensors(
        self, step_index: int, memory: np.ndarray, stream: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The maps that step `step_index` has left in memory, uint64 (words,), by tap name.

        Arrays are (H, W, C) as the golden's, bits uint8 and residuals int32. stream : the residual
        stream's own memory, if it has one, uint64 (words * pe,).
        """
        pe = self.parameters.pe
        stream = memory if stream is None else stream
        step = self.steps[step_index]
        result: dict[str, np.ndarray] = {}
        if step.residual:
            name, place = step.residual
            size = (place.height, place.width, place.channels)
            count = layout.residual_words(*size, self.parameters.per_word)
            words = stream[place.address * pe :][: count * pe]
            values = layout.unpack_residuals(words, *size, self.slot_width)
            result[name] = values >> self.parameters.slot_fraction
        if step.bits:
            name, place = step.bits
            shape = (place.height, place.width, place.channels)
            words = memory[place.address :][: layout.bit_words(*shape)]
            result[name] = layout.unpack_bits(words, *shape)
        if step.numbers:
            name, first, count, apart = step.numbers
            result[name] = layout.unpack_numbers(memory[first : first + count * apart : apart])
        return result


def _parameters(program: Program) -> EngineParameters:
    network, spec = program.network, program.network.spec
    formats = spec.formats
    convolutions = spec.convolutions()
    folds = _folds(network)
    sizes = {size for conv in convolutions for size in (conv.height, conv.width)}
    height, width, channels = spec.input
    widths = (spec.stem_channels, *(conv.out_channels for conv in convolutions))
    most_groups = max(map(groups, widths))
    return EngineParameters(
        residual_width=formats.residual_width,
        guard=formats.guard,
        shift=formats.scale_fraction - formats.guard,
        acc_width=(72 * folds).bit_length() + 1,
        thresholds=program.schedule.thresholds,
        minus_one=spec.repair.padding == "minus-one",
        odd_maps=any(size % 2 for size in sizes),
        image_height=height,
        image_width=width,
        image_channels=channels,
        pre_shift=network.stem.pre_shift,
        bias_shift=network.head.bias_shift,
        most_groups=most_groups,
        most_words=max(_walked(program), layout.GROUP * most_groups),
        classes=spec.classes,
        sum_width=min(32, _logit_bits(network)),
        **asdict(program.shape),
        passes=program.schedule.passes,
        in_place=any(task.work.in_place for task in program.schedule.tasks if task.work),
        averages=any(averages(conv, spec.repair) for conv in network.convolutions),
        spatial=any(conv.spatial is not None for conv in network.convolutions),
        shortcut_shift=_shortcut_shift(network),
        levels=0 if network.stem.levels is None else len(network.stem.levels),
        limits=_limits(network),
        pad=spec.pad if network.stem.levels is not None or set(spec.pad) - {128} else (),
        strip_gap=_strip_gap(network, program),
        gates=any(conv.gate is not None for conv in network.convolutions),
        activation=program.schedule.slopes is not None,
        positive=_rising(program),
        tiles=any(task.tile is not None for task in program.schedule.tasks),
        streams=program.streams,
        shift_out=program.schedule.slopes is not None and program.schedule.slopes.shift_out,
    )


def _limits(network: IntegerNetwork) -> tuple[int, ...]:
    """The thermometer's levels, unless they cut bytes in equal parts."""
    levels = () if network.stem.levels is None else tuple(network.stem.levels.tolist())
    return () if list(levels) == thermometer_levels(len(levels)) else levels


def _rising(program: Program) -> bool:
    """Whether slopes of the lanes differ from 1.0 above zero; a maxout's do, however trained."""
    slopes = program.schedule.slopes
    if slopes is None:
        return False
    if program.network.spec.repair.activation == "maxout":
        return True
    acts = [conv.after for conv in program.network.convolutions if conv.after is not None]
    return any(bool((act.positive != slopes.one).any()) for act in acts)


def _shortcut_shift(network: IntegerNetwork) -> int | None:
    """Of the 8-bit shortcuts, who have it in common; None if there are none."""
    parts = [conv.shortcut for conv in network.convolutions if conv.shortcut is not None]
    return next((part.pre_shift for part in parts if not part.binary), None)


def _folds(network: IntegerNetwork) -> int:
    """The most groups of 16 inputs that a convolution has."""
    return max(
        image_groups(network), *(groups(conv.in_channels) for conv in network.spec.convolutions())
    )


def _strip_gap(network: IntegerNetwork, program: Program) -> int | None:
    """Words of features between the rows of a strip of the image; None if there are no strips."""
    strips = image_strips(network, program.shape)
    if len(strips) < 2:
        return None
    columns = layout.blocks(*network.spec.input[:2])[1]
    return (columns - strips[0][1] - 2) * image_groups(network)


def _logit_bits(network: IntegerNetwork) -> int:
    """Signed bits that hold any logit, whatever the image."""
    last = network.spec.convolutions()[-1]
    pixels = last.out_height * last.out_width
    weights = np.abs(network.head.weights.astype(np.int64)).sum(axis=1)
    bias = np.abs(network.head.bias_mantissa.astype(np.int64)) << network.head.bias_shift
    top = weights * pixels << (network.spec.formats.residual_width - 1)
    return int((top + bias).max()).bit_length() + 1


def _walked(program: Program) -> int:
    """Words of the largest map that the head, or a gate's layer, takes whole."""
    return max(
        layout.residual_words(*task.inside, program.per_word)
        for task in program.schedule.tasks
        if task.gives_logits or (task.work is not None and task.work.kind == "layer")
    )


def _rams(program: Program, board: Board) -> int:
    """Block RAMs: the window's, for each channel in parallel the taps' and one for each parameter,
    and the memories'."""
    slopes, shape = program.schedule.slopes, program.shape
    channel = TAPS + 2 + program.schedule.thresholds
    channel += 0 if slopes is None else 1 + _rising(program) + slopes.shift_out
    rams = 16 * board.rams(shape.window_depth, GROUP)
    rams += shape.pe * channel * board.rams(shape.weight_depth, GROUP)
    if not shape.own_stream:
        return rams + board.memory_ebr
    memory = board.rams(program.end, WORD_WIDTH, NIBBLE)
    return rams + memory + board.rams(program.stream_end, shape.word_width)


def _multipliers(program: Program) -> int:
    """Of the lanes; of the 8-bit layers, or the lanes' second ones."""
    shape = program.shape
    second = LANES * shape.pe if program.schedule.slopes is not None else shape.macs
    return LANES * shape.pe + second


def _resources(program: Program, board: Board) -> tuple[Resource, ...]:
    network = program.network
    convolutions = network.spec.convolutions()
    columns = max(
        (layout.blocks(conv.height, conv.width)[1] + 2) * groups(conv.in_channels)
        for conv in convolutions
    )
    shape = program.shape
    return (
        Resource("memory (64-bit words)", program.end, board.memory_words,
                 "fewer or narrower layers, a smaller image or residual width"),
        *([Resource(f"residual stream ({shape.word_width}-bit words)", program.stream_end,
                    1 << ADDRESS_WIDTH, "a smaller image or narrower layers")]
          if shape.own_stream else []),
        Resource("weight buffer (entries of a layer)", program.entries, shape.weight_depth,
                 "wider stages in smaller steps: out_channels * in_channels / 16 of the first "
                 "convolution of each at most 256"),
        Resource("window buffer (groups in a row of blocks)", columns, shape.window_groups,
                 "a narrower image or narrower stages"),
        Resource("last map, or one with gates (64-bit words)", _walked(program), 1 << WALK_WIDTH,
                 "a smaller image"),
        Resource("program (steps)", len(program.schedule.tasks), 255, "a shallower network"),
        Resource("accumulator (bits of a logit)", _logit_bits(network), 32,
                 "a smaller residual width or last feature map"),
        Resource("block RAM (EBR)", _rams(program, board), board.budget["ebr"],
                 "another board"),
        Resource("multipliers (DSP)", _multipliers(program), board.budget["dsp"],
                 "another board"),
        Resource("folds of a layer", _folds(network), 16,
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


def shapes(network: IntegerNetwork, board: Board) -> Iterator[ArrayShape]:
    """Arrays that could run the network on a board, the largest first."""
    depth = board.ebr_bits // GROUP
    pe = board.most_pe
    while pe >= 1:
        if pe == 1 or _in_parallel(network, pe):
            # A head alone is done soon enough by half of a channel's multipliers.
            alone = network.stem.levels is not None and not needs_passes(network)
            tokens = min(LANES // 2 if alone else LANES, GROUP // pe)
            shape = ArrayShape(pe=pe, window_depth=depth, weight_depth=depth, tokens=tokens)
            if shape.own_stream:
                yield replace(shape, resident=True)
            yield shape
        pe //= 2


def _in_parallel(network: IntegerNetwork, pe: int) -> bool:
    """Whether the engine can make so many channels of each layer at once: the channels that a
    shortcut adds must lie in memory as they leave the array, gates and 8-bit shortcuts go to one
    lane, and a position's spatial factors must be in the window until its first channel is."""
    width = 16 if needs_passes(network) else network.spec.formats.residual_width
    per_word = ArrayShape(pe=pe).word_channels(layout.slot_width(width))
    for conv in network.convolutions:
        shape = conv.shape
        if conv.gate is not None or (conv.shortcut is not None and not conv.shortcut.binary):
            return False
        if conv.spatial is not None:
            return False
        if shape.shortcut_offset % pe or (
            averages(conv, network.spec.repair)
            and (shape.shortcut_channels % per_word or shape.out_channels % pe)
        ):
            return False
    return True


def _no_stream(network: IntegerNetwork) -> str | None:
    """What is written to the weights, or has a place of its own beside them, if anything."""
    for conv in network.convolutions:
        for name in ("gate", "spatial"):
            if getattr(conv, name) is not None:
                return f"{conv.shape.name}: weights cannot be streamed beside its {name}"
    return None


def make_plan(
    network: IntegerNetwork, board: Board, *, image_base: int = 0, pe: int | None = None,
    streams: bool | None = False,
) -> Plan:  # fmt: skip
    """Lay a network out for the engine on `board`.

    pe : output channels in parallel; None: as many as fit.
    image_base : the least address of the image, which is a part of the hardware: so networks of
        different programs can share an engine that has all of their `parameters`.
    streams : whether program and weights come as a stream of words, which leaves the memory to the
        maps; None: on a board that can, where they do not fit it.
    Raises UserError for a method that the engine cannot run, DoesNotFit, with the whole resource
    table, if anything is too large.
    """
    check_methods(network.spec.repair)
    check_contract(network)
    able = [shape for shape in shapes(network, board) if pe in (None, shape.pe)]
    if not able:
        can = ", ".join(str(shape.pe) for shape in shapes(network, board) if not shape.resident)
        raise UserError(
            f"pe={pe}: the engine cannot run this network so on {board.name}; use {can}"
        )
    if streams:
        if reason := _no_stream(network):
            raise UserError(reason)
        program, resources = _fitting(network, board, image_base, able, True)
    else:
        program, resources = _fitting(network, board, image_base, able, False)
        if streams is None and board.streams and not _fits(resources) and not _no_stream(network):
            streamed, needs = _fitting(network, board, image_base, able, True)
            if _fits(needs):
                program, resources = streamed, needs
    if not _fits(resources):
        raise DoesNotFit(board.name, resources)
    return _plan(program, board, resources)


def _fits(resources: tuple[Resource, ...]) -> bool:
    return all(part.fits for part in resources)


def _fitting(
    network: IntegerNetwork, board: Board, image_base: int, able: list[ArrayShape], streams: bool
) -> tuple[Program, tuple[Resource, ...]]:
    """Returns the first program that fits, or the last that does not, and what it needs.

    Activations take a pass, and maps share memory, where they must."""
    if streams:
        able = [shape for shape in able if shape.pe == 1]
    for shape, slopes, shared, strips in product(able, (True, False), (False, True), STRIPS):
        program = Program(
            network, image_base, strips, shared=shared, slopes=slopes, shape=shape, streams=streams
        )
        resources = _resources(program, board)
        if _fits(resources):
            break
    return program, resources


def _plan(program: Program, board: Board, resources: tuple[Resource, ...]) -> Plan:
    network, streams = program.network, program.streams
    own = program.shape.own_stream
    steps = program.steps()
    factors = program.schedule.factors.values()
    words = [program.load(0), *(word for step in steps for word in step.words)]
    image = np.concatenate([np.array(words, np.uint64), *program.contents, *factors])
    regions: tuple[tuple[str, int, int], ...] = (
        ("program", 0, 1 + DESCRIPTOR_WORDS * len(steps)),
        ("weights", program.weights_at[0], program.weights_end - program.weights_at[0]),
    )
    if streams:
        image, regions = image[:0], ()
    return Plan(
        network=network,
        parameters=_parameters(program),
        image_base=program.image_base,
        image=image,
        steps=steps,
        resources=resources,
        slot_width=layout.slot_width(program.width),
        memory_map=(
            *regions,
            *((name, *at) for name, at in program.places.items() if name not in program.stream),
        ),
        memory_words=board.depth(program.end, NIBBLE) if own else board.memory_words,
        stream_map=tuple((name, *program.places[name]) for name in program.stream),
        stream_words=board.depth(program.stream_end) if own else 0,
        words=program.stream_of(steps) if streams else None,
    )
