"""Random legal combinations of the repair methods, and random networks of them that share engines.

Everything follows from a seed and a case's number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, islice
from typing import Any

import numpy as np

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as LARGER
from bnnhw.compiler.layout import GROUP, groups
from bnnhw.compiler.plan import DoesNotFit, Plan, check_methods, make_plan, shapes
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import ArrayShape
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork, IntegerShortcut, keeps_wide
from bnnhw.network.operations import INT16
from bnnhw.network.repair import CATEGORIES, Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn.stems import LEVELS
from bnnhw.nn.untrained import untrained
from tests.random_networks import random_network

BATCH = 10  # networks that share an engine
PLAIN = 5  # every so many batches, the first included, one of methods without further passes
WIDTHS = (2, 6, 14, 16, 18, 30, 32, 34, 48, 50)
MACS = 5_000_000  # of a network, so that a simulation takes a second
PARALLEL = (1, 8, 1, 4, 1, 2)  # output channels in parallel, batch by batch
WIDE = (16, 32, 48)  # widths where these are more than one
IMAGES = 2
IMAGE_BASE = 8000  # of all, since it is part of the hardware
TRIES = 100


@cache
def _repair(**chosen: Any) -> Repair | None:
    """None if the combination is illegal, or the engine lacks a method."""
    try:
        repair = Repair(**chosen)
        check_methods(repair)
    except UserError:
        return None
    return repair


VALUES = {
    category.name: [value for value in category.values if _repair(**{category.name: value})]
    for category in CATEGORIES
}


def repairs(seed: int) -> Iterator[Repair]:
    """Category by category, in random order, the value that was used least of those possible."""
    rng = np.random.default_rng([seed, 0])
    used = (Counter(), Counter())
    for number in count():
        plain, chosen = is_plain(number // BATCH), {"stem": stem_of(number // BATCH)}
        for name in map(str, rng.permutation([name for name in VALUES if name != "stem"])):
            possible = [
                value
                for value in VALUES[name]
                if (repair := _repair(**chosen, **{name: value}))
                and (pe_of(number // BATCH) == 1 or _in_parallel(repair))
                and not (plain and keeps_wide(NetworkSpec(repair=repair)))
            ]
            order = rng.permutation(len(possible))
            times = [used[plain][name, possible[at]] for at in order]
            chosen[name] = possible[order[int(np.argmin(times))]]
            used[plain][name, chosen[name]] += 1
        yield Repair(**chosen)


def is_plain(batch: int) -> bool:
    """Whether a batch has no method that keeps wide numbers: residuals of 8 bits take 8 then."""
    return batch % PLAIN == 0


def pe_of(batch: int) -> int:
    """Output channels in parallel of a batch's engine."""
    return PARALLEL[batch % len(PARALLEL)]


def _in_parallel(repair: Repair) -> bool:
    """Whether an engine of channels in parallel has these methods."""
    lane = repair.squeeze_excitation == "none" and repair.downsample != "conv1x1-8bit"
    return lane and repair.scaling != "spatial"


def stem_of(batch: int) -> str:
    """The stem of a batch, which an engine has one of."""
    return VALUES["stem"][batch // 2 % len(VALUES["stem"])]


def plan_of(network: IntegerNetwork, pe: int) -> Plan:
    """Its image lies at IMAGE_BASE, unless program and weights reach further."""
    return make_plan(network, BOARD if pe == 1 else LARGER, image_base=IMAGE_BASE, pe=pe)


@dataclass(frozen=True)
class Shape:
    """What networks of one engine have in common, since it is part of the hardware.

    levels : of the thermometer; 0: the stem is of 8 bits. first : the first stage's width with
        a thermometer, whose image's rows may lie apart by as much. pad, limits : bytes outside
        the image, levels of a thermometer's own; empty where there are none. pe : channels in
        parallel.
    """

    input: tuple[int, int, int]
    classes: int
    formats: NumberFormats
    pre_shift: int
    bias_shift: int
    shortcut_shift: int
    levels: int
    first: int
    pe: int
    pad: tuple[int, ...]
    limits: tuple[int, ...]

    @classmethod
    def random(cls, rng: np.random.Generator, plain: bool, stem: str, pe: int) -> Shape:
        guard = int(rng.integers(1, 7))
        scale_fraction = int(rng.integers(guard if plain else guard + 8, 15))
        widest = 15 if plain else 15 - guard
        narrow = plain and rng.random() < 0.7
        formats = NumberFormats(
            residual_width=8 if narrow else int(rng.integers(8, widest + 1)),
            scale_fraction=scale_fraction,
            guard=guard,
        )
        height, width, channels = map(int, rng.integers((4, 4, 1), (14, 14, 5)))
        first = int(rng.choice(WIDTHS[:5] if pe == 1 else WIDE[:1]))
        room = min(16, ArrayShape().weight_depth // GROUP // groups(first)) // channels
        levels = LEVELS if rng.random() < 0.5 else 2 * int(rng.integers(1, 8 * min(4, room) + 1))
        levels = levels if stem == "thermometer" else 0
        return cls(
            input=(height, 2 * width if levels else width, channels),
            classes=int(rng.integers(2, 14)),
            formats=formats,
            pre_shift=int(rng.integers(7, 12)),
            bias_shift=int(rng.integers(0, 15)),
            shortcut_shift=formats.residual_width + int(rng.integers(-3, 2)),
            levels=levels,
            first=first,
            pe=pe,
            pad=tuple(map(int, rng.integers(0, 256, channels))) if rng.random() < 0.5 else (),
            limits=_limits(rng, levels) if rng.random() < 0.5 else (),
        )

    def network(self, rng: np.random.Generator, repair: Repair) -> IntegerNetwork:
        """One of these methods that fits the board: half of them made of training's parameters."""
        lowered = (self.limits or self.levels in (0, LEVELS)) and rng.random() < 0.5
        for attempt in range(TRIES):
            spec, seed = self._spec(rng, repair), int(rng.integers(1 << 30))
            if sum(shape.macs for shape in spec.convolutions()) > MACS:
                continue
            trained = lowered and attempt < TRIES // 2
            try:
                network = lower(untrained(spec, seed)) if trained else self._any(spec, seed)
                network = self._fitted(network)
                if self.pe > 1 and all(at.pe != self.pe for at in shapes(network, LARGER)):
                    continue
                if plan_of(network, self.pe).image_base == IMAGE_BASE:
                    return network
            except UserError as fault:  # too large for the board, or for these formats
                if not (trained or isinstance(fault, DoesNotFit)):
                    raise
        raise ValueError(f"{self}: {TRIES} networks of {repair}, none of which fits")

    def _any(self, spec: NetworkSpec, seed: int) -> IntegerNetwork:
        rng = np.random.default_rng(seed)
        loud, extremes = rng.choice([0.3, 1.0, 4.0]), rng.choice([0.0, 0.05, 0.3])
        return random_network(spec, seed, loud, extremes, self.levels, 0.5)

    def _spec(self, rng: np.random.Generator, repair: Repair) -> NetworkSpec:
        stages = int(rng.choice([1, 2, 2, 2, 3, 3])) if min(self.input[:2]) >= 8 else 2
        depth = 2 * stages * int(rng.integers(1, 3)) + 2
        first = [self.first] if self.levels else []
        possible = WIDTHS if self.pe == 1 else WIDE
        wider = [width for width in possible if not first or width >= self.first]
        widths = (*first, *sorted(map(int, rng.choice(wider, stages - len(first)))))
        width = self.formats.residual_width
        fraction = int(rng.integers(width // 2 - 1, width - 2))
        formats = replace(self.formats, residual_fraction=fraction)
        return NetworkSpec(
            depth, widths, self.input, self.classes, repair, formats, pad=self.pad,
            levels=self.limits,
        )  # fmt: skip

    def _fitted(self, network: IntegerNetwork) -> IntegerNetwork:
        """As good as the same numbers with the engine's shifts."""
        fraction = network.spec.formats.residual_fraction
        formats = replace(self.formats, residual_fraction=fraction)
        stem, convolutions = network.stem, network.convolutions
        if stem.levels is None:
            scale = _shifted(stem.requantiser.scale, self.pre_shift - stem.pre_shift)
            part = replace(stem.requantiser, scale=scale)
            stem = replace(stem, pre_shift=self.pre_shift, requantiser=part)
        if network.spec.repair.downsample == "conv1x1-8bit":
            convolutions = tuple(
                replace(conv, shortcut=conv.shortcut and self._shortcut(conv.shortcut))
                for conv in convolutions
            )
        head = replace(network.head, bias_shift=self.bias_shift)
        spec = replace(network.spec, formats=formats)
        return IntegerNetwork(spec, stem, convolutions, head)

    def _shortcut(self, part: IntegerShortcut) -> IntegerShortcut:
        scale = _shifted(part.scale, self.shortcut_shift - part.pre_shift)
        return replace(part, pre_shift=self.shortcut_shift, scale=scale)


def _limits(rng: np.random.Generator, levels: int) -> tuple[int, ...]:
    """So many rising bytes from 1."""
    return tuple(sorted(map(int, 1 + rng.permutation(255)[:levels])))


def _shifted(scale: np.ndarray, bits: int) -> np.ndarray:
    """Scales of sums that lose so many bits more."""
    return (scale * 2.0**bits).clip(*INT16).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """A network and its images, and how they reach the engine of `pe` channels in parallel."""

    seed: int
    number: int
    network: IntegerNetwork
    images: np.ndarray
    byte_cycles: int
    stall: bool
    pe: int = 1


def batch_of(seed: int, batch: int) -> list[Case]:
    """The networks of one engine."""
    rng = np.random.default_rng([seed, 1, batch])
    shape = Shape.random(rng, is_plain(batch), stem_of(batch), pe_of(batch))
    numbers = range(batch * BATCH, (batch + 1) * BATCH)
    combinations = islice(repairs(seed), numbers.start, numbers.stop)
    return [_case(seed, *each, shape) for each in zip(numbers, combinations, strict=True)]


def _case(seed: int, number: int, repair: Repair, shape: Shape) -> Case:
    rng = np.random.default_rng([seed, 2, number])
    network = shape.network(rng, repair)
    images = rng.integers(0, 256, (IMAGES, *shape.input), np.uint8)
    if rng.random() < 0.3:
        images[images < 128], images[images >= 128] = 0, 255
    pace, stall = int(rng.choice([1, 3, 80])), rng.random() < 0.3
    return Case(seed, number, network, images, pace, stall, shape.pe)
