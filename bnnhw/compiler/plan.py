"""IntegerNetwork + board -> program, memory map and boot image of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bnnhw.boards.numbers import Board
from bnnhw.compiler import layout
from bnnhw.compiler.contract import check_contract
from bnnhw.compiler.layout import groups
from bnnhw.compiler.passes import averages, needs_passes
from bnnhw.compiler.program import Program, Step
from bnnhw.compiler.schedule import WEIGHT_DEPTH, WINDOW_GROUPS, image_groups, image_strips
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import EngineParameters
from bnnhw.gateware.program import DESCRIPTOR_WORDS, WALK_WIDTH
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.repair import Repair

WINDOW_ROWS = 4
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
    """Everything the hardware needs to run one network on one board."""

    network: IntegerNetwork
    parameters: EngineParameters
    image_base: int
    image: np.ndarray
    steps: tuple[Step, ...]
    resources: tuple[Resource, ...]
    slot_width: int
    memory_map: tuple[tuple[str, int, int], ...]
    memory_words: int

    def tensors(self, step_index: int, memory: np.ndarray) -> dict[str, np.ndarray]:
        """The maps that step `step_index` has left in memory, uint64 (words,), by tap name.

        Arrays are (H, W, C) as the golden's, bits uint8 and residuals int32.
        """
        step = self.steps[step_index]
        result: dict[str, np.ndarray] = {}
        if step.residual:
            name, place = step.residual
            size = (place.height, place.width, place.channels, self.slot_width)
            words = memory[place.address :][: layout.residual_words(*size)]
            result[name] = layout.unpack_residuals(words, *size) >> self.parameters.slot_fraction
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
        classes=spec.classes,
        sum_width=min(32, _logit_bits(network)),
        window_depth=WINDOW_ROWS * WINDOW_GROUPS,
        weight_depth=WEIGHT_DEPTH,
        passes=needs_passes(network),
        in_place=any(task.work.in_place for task in program.schedule.tasks if task.work),
        averages=any(averages(conv, spec.repair) for conv in network.convolutions),
        spatial=any(conv.spatial is not None for conv in network.convolutions),
        shortcut_shift=_shortcut_shift(network),
        levels=0 if network.stem.levels is None else len(network.stem.levels),
        gaps=_gaps(network),
        gates=any(conv.gate is not None for conv in network.convolutions),
    )


def _shortcut_shift(network: IntegerNetwork) -> int | None:
    """Of the 8-bit shortcuts, who have it in common; None if there are none."""
    parts = [conv.shortcut for conv in network.convolutions if conv.shortcut is not None]
    return next((part.pre_shift for part in parts if not part.binary), None)


def _folds(network: IntegerNetwork) -> int:
    """The most groups of 16 inputs that a convolution has."""
    return max(
        image_groups(network), *(groups(conv.in_channels) for conv in network.spec.convolutions())
    )


def _gaps(network: IntegerNetwork) -> tuple[int, int, int] | None:
    """Words between the rows of a strip of the image."""
    strips = image_strips(network)
    if len(strips) < 2:
        return None
    spec = network.spec
    others = layout.blocks(*spec.input[:2])[1] - strips[0][1]
    width = 16 if needs_passes(network) else spec.formats.residual_width
    bits = others * groups(spec.stem_channels)
    residuals = bits * layout.GROUP // layout.word_channels(width)
    return (others - 2) * image_groups(network), bits, residuals


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
        layout.residual_words(*task.inside, program.width)
        for task in program.schedule.tasks
        if task.layer.startswith("head") or (task.work is not None and task.work.kind == "layer")
    )


def _resources(program: Program, board: Board) -> tuple[Resource, ...]:
    network = program.network
    convolutions = network.spec.convolutions()
    columns = max(
        (layout.blocks(conv.height, conv.width)[1] + 2) * groups(conv.in_channels)
        for conv in convolutions
    )
    thresholds = program.schedule.thresholds
    widest = max(len(task.contents) // len(task.entry_rows) for task in program.schedule.tasks)
    return (
        Resource("memory (64-bit words)", program.end, board.memory_words,
                 "fewer or narrower layers, a smaller image or residual width"),
        Resource("weight buffer (entries of a layer)", widest, WEIGHT_DEPTH,
                 "narrower stages: out_channels * in_channels / 16 at most 256"),
        Resource("window buffer (groups in a row of blocks)", columns, WINDOW_GROUPS,
                 "a narrower image or narrower stages"),
        Resource("last map, or one with gates (64-bit words)", _walked(program), 1 << WALK_WIDTH,
                 "a smaller image"),
        Resource("program (steps)", len(program.schedule.tasks), 255, "a shallower network"),
        Resource("accumulator (bits of a logit)", _logit_bits(network), 32,
                 "a smaller residual width or last feature map"),
        Resource("block RAM (EBR)", 27 + thresholds + board.memory_ebr, board.budget["ebr"],
                 "another board"),
        Resource("multipliers (DSP)", 8, board.budget["dsp"], "another board"),
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


def make_plan(network: IntegerNetwork, board: Board, *, image_base: int = 0) -> Plan:
    """Lay a network out for the engine on `board`.

    image_base : the least address of the image, which is a part of the hardware: so networks of
        different programs can share an engine that has all of their `parameters`.
    Raises UserError for a method that the engine cannot run, DoesNotFit, with the whole resource
    table, if anything is too large.
    """
    check_methods(network.spec.repair)
    check_contract(network)
    for shared, strips in product((False, True), STRIPS):  # maps share memory where they must
        program = Program(network, image_base, strips, shared=shared)
        if program.end <= board.memory_words:
            break
    resources = _resources(program, board)
    if not all(part.fits for part in resources):
        raise DoesNotFit(board.name, resources)
    steps = program.steps()
    factors = program.schedule.factors.values()
    descriptors = [np.array(step.words, np.uint64) for step in steps]
    return Plan(
        network=network,
        parameters=_parameters(program),
        image_base=program.image_base,
        image=np.concatenate([*descriptors, *program.contents, *factors]),
        steps=steps,
        resources=resources,
        slot_width=layout.slot_width(program.width),
        memory_map=(
            ("program", 0, DESCRIPTOR_WORDS * len(steps)),
            ("weights", program.weights_at[0], program.weights_end - program.weights_at[0]),
            *((name, *place) for name, place in program.places.items()),
        ),
        memory_words=board.memory_words,
    )
