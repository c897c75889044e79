"""A schedule with its addresses: the engine's program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from bnnhw.compiler import layout
from bnnhw.compiler.allocation import needed, share
from bnnhw.compiler.cycles import (
    StepCycles,
    convolution_cycles,
    head_cycles,
    pointwise_cycles,
    stem_cycles,
)
from bnnhw.compiler.entries import ONE
from bnnhw.compiler.layout import GROUP, groups
from bnnhw.compiler.passes import GATES, SIGNS, STREAM, Pass
from bnnhw.compiler.schedule import IMAGE, Schedule, Task
from bnnhw.compiler.stream import WordStream, folds, linked, word_stream
from bnnhw.gateware.parameters import ArrayShape
from bnnhw.gateware.program import DESCRIPTOR_WORDS, Geometry, Kind, Load, Sinks, Sources, Walk
from bnnhw.network.integer import IntegerNetwork


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

    kind : stem (8-bit), head, or as bnnhw.compiler.passes.Pass: conv, scale, shortcut, bits,
        pointwise or layer.
    bits, residual : what it leaves of what the golden has, by the golden's names; name and map.
    numbers : of a gate's layer; name, first word, how many, words from one to the next.
    """

    name: str
    kind: str
    words: tuple[int, ...]
    cycles: StepCycles
    bits: tuple[str, Map] | None = None
    residual: tuple[str, Map] | None = None
    numbers: tuple[str, int, int, int] | None = None


class Program:
    """The steps of a network; `places` has each map's first word and size.

    shape : of the array; where the residual stream has a memory of its own, its places are there.
    image_base : the image lies there, or further up if what comes before it needs the room.
    strips, slopes : as bnnhw.compiler.schedule.Schedule. shared : maps that are not needed at once
    may share memory. streams : program and weights are a stream of words and not in memory.
    contents : of the weight buffer, each once; `weights_at` has their first word
    for each step, `entries_at` their first entry in the weight buffers; `entries` is how many these
    need. end, stream_end : words in all of the memory, of the stream's own.
    """

    def __init__(
        self, network: IntegerNetwork, image_base: int = 0, strips: int = 1, *,
        shared: bool = False, slopes: bool = True, shape: ArrayShape = ONE, streams: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.shape, self.streams = network, shape, streams
        self.schedule = schedule = Schedule(
            network, strips, shared=shared, slopes=slopes, shape=shape
        )
        self.width, self.per_word = schedule.width, schedule.per_word
        self.end = 0 if streams else 1 + DESCRIPTOR_WORDS * len(schedule.tasks)
        known: dict[tuple[bool, bytes], int] = {}  # those of gates are written
        self.contents, self.weights_at = [], []
        for task in schedule.tasks:
            key = task.work is not None and task.work.gated, task.contents.tobytes()
            if streams:
                self.weights_at.append(0)
                continue
            if key not in known:
                known[key] = self.end
                self.contents.append(task.contents)
                self.end += len(task.contents)
            self.weights_at.append(known[key])
        self.weights_end = self.end
        counts = [-(-task.entries // shape.pe) for task in schedule.tasks]
        before = [0, *accumulate(counts)] if shape.resident else [0] * (len(counts) + 1)
        self.entries_at, self.entries = before[:-1], max(before[-1], *counts)
        self.places: dict[str, tuple[int, int]] = {}
        sizes = {name: len(words) for name, words in schedule.factors.items()} | schedule.places
        times = needed(schedule.tasks) if shared else {}
        apart = {task.residual for task in schedule.tasks} if shape.own_stream else set()
        self.stream = {name: size for name, size in sizes.items() if name in apart}
        others = {name: size for name, size in sizes.items() if name not in apart}
        maps = self.end
        if shape.resident:  # maps lie where the weights were, before these were loaded
            constant = {name: others.pop(name) for name in schedule.factors}
            self.end = self._lay(constant, {}, self.end, 0)
            maps = 1 + DESCRIPTOR_WORDS * len(schedule.tasks)
            if constant:
                maps = self.end
        self.end = max(self.end, self._lay(others, times, maps, image_base))
        self.stream_end = self._lay(self.stream, times, 0, 0)

    def _lay(
        self, sizes: dict[str, int], times: dict[str, range], first: int, image_base: int
    ) -> int:
        """Gives each a place, from a first word on. Returns the end."""
        end = first
        for name, size in sizes.items():
            if name not in times:  # the next image may come as soon as the stem is done
                at = max(end, image_base) if name == IMAGE else end
                self.places[name] = (at, size)
                end = at + size
        lasting = {name: span for name, span in times.items() if name in sizes}
        self.places |= share(sizes, lasting, end)
        return max((sum(self.places[name]) for name in sizes), default=end)

    def steps(self) -> tuple[Step, ...]:
        """Every step, encoded. `load` has the word before them."""
        encoders = dict(stem=self._stem, head=self._head, layer=self._layer)
        kinds = [t.work.kind if t.work else t.layer.split(".")[0] for t in self.schedule.tasks]
        steps = [
            encoders.get(kind, self._pass)(index, task)
            for index, (kind, task) in enumerate(zip(kinds, self.schedule.tasks, strict=True))
        ]
        if self.shape.resident:
            return tuple(replace(step, cycles=replace(step.cycles, weights=0)) for step in steps)
        if self.streams:
            steps = [
                replace(step, cycles=linked(step.cycles, task))
                for step, task in zip(steps, self.schedule.tasks, strict=True)
            ]
        return tuple(
            replace(step, cycles=step.cycles.after(steps[index - 1].cycles))
            if self.ahead(index)
            else step
            for index, step in enumerate(steps)
        )

    def stream_of(self, steps: tuple[Step, ...]) -> WordStream:
        """The words of the steps and of their weights."""
        return word_stream(self.load(0), self.schedule.tasks, [step.words for step in steps])

    def address(self, place: str) -> int:
        """First word of a place; 0 for none."""
        return self.places[place][0] if place else 0

    def load(self, index: int) -> int:
        """The Load word of a step, which is in the one before."""
        tasks = self.schedule.tasks
        task = tasks[index % len(tasks)]
        rows = dict(
            skip_first=task.entry_rows.start, skip_last=task.entry_rows.stop == 2,
            first_only=task.entry_rows.stop == 1,
        )  # fmt: skip
        each = folds(task) if self.streams else max(task.slope_folds, 1)
        fields = dict(
            weights=self.weights_at[index % len(tasks)], words=len(task.contents), rows=rows,
            folds=each - 1, ahead=self.ahead(index),
            entry=self.entries_at[index % len(tasks)],
        )  # fmt: skip
        return int(Load.const(fields).as_value().value)

    def ahead(self, index: int) -> bool:
        """Whether a step's weights may be loaded while the one before runs: each takes half of the
        buffer, and the one before does not make them."""
        tasks = self.schedule.tasks
        before, task = tasks[index - 1], tasks[index % len(tasks)]
        made = before.work is not None and before.work.keeps == GATES
        return (
            not made
            and max(before.entries, task.entries) <= self.shape.weight_depth // 2 * self.shape.pe
        )

    def _walk(self, index: int) -> dict[str, Any]:
        """How a step's outputs go on after a position and a row."""
        task = self.schedule.tasks[index]
        all_groups, columns = groups(task.size[2]), layout.blocks(*task.size[:2])[1]
        position = row = 0
        single = task.features == IMAGE and task.work is None
        if single or (task.work is not None and task.work.strided):
            position, row = -all_groups, -columns * all_groups
        elif task.tile is not None:
            position = row = all_groups - len(task.tile)
        elif task.strip is not None:
            row = (columns - task.strip[1]) * all_groups
        return dict(position=position, row=row, entry=self.entries_at[index])

    def _sources(self, task: Task, **others: int) -> dict[str, Any]:
        return dict(features=self.address(task.features)) | others

    def _map(self, name: str, place: str, task: Task) -> tuple[str, Map]:
        return name, Map(self.address(place), *task.size)

    def _stem(self, index: int, task: Task) -> Step:
        height, width, out = task.size
        words = _descriptor(
            dict(kind=Kind.STEM, single=1, keep=1, emit=1, columns=width - 1, rows=height - 1,
                 groups=groups(out) - 1),
            self._sources(task),
            dict(bits=self.address(task.bits), residual=self.address(task.residual)),
            self._walk(index), self.load(index + 1),
        )  # fmt: skip
        cycles = stem_cycles(height, width, task.inside[2], out, len(task.contents), self.shape)
        return Step(
            task.name, "stem", words, cycles, self._map("stem.bits", task.bits, task),
            self._map("stem.residual", task.residual, task),
        )  # fmt: skip

    def _pass(self, index: int, task: Task) -> Step:
        work = task.work
        assert work is not None
        (height, width, inside), out = task.inside, groups(task.size[2])
        out = out if task.tile is None else len(task.tile)
        rows, columns = len(task.rows), layout.blocks(height, width)[1]
        first, wide = task.strip or (0, columns)
        # A strip is read from the column, or the row, before it.
        before = first - 1 if task.strip else 0
        before += (task.rows.start - (task.rows.start > 0)) * columns
        period = inside // self.per_word - 1 if work.mean else 0
        adds = self._numbers(task.adds, work.adds, task)
        sources = self._sources(task, shortcut=adds, period=period)
        sources["features"] += before * work.fetches
        skipped = task.rows.start * columns + first
        sinks = dict(
            bits=self.address(task.bits) + skipped * groups(task.size[2]) + task.first_group,
            residual=self._numbers(task.residual, work.keeps, task),
            operand=self._numbers(task.operand, work.operand, task),
            upper=task.upper,
            head_words=GROUP * groups(inside) - 1,
        )
        words = _descriptor(
            self._geometry(task, work), sources, sinks, self._walk(index), self.load(index + 1)
        )
        if work.kind == "pointwise":
            cycles = pointwise_cycles(rows * columns, inside, out, len(task.contents))
        else:
            cycles = convolution_cycles(
                rows, wide, work.folds, out, reads=bool(task.adds) + bool(task.operand),
                writes=bool(task.residual),
                per_word=self.per_word, single=work.strided, weight_words=len(task.contents),
                fetches=work.fetches, shape=self.shape,
            )  # fmt: skip
        bits = residual = None
        whole = first + wide == columns and not task.below and not task.beside
        if work.emits is not None and work.emits != SIGNS and whole:
            bits = self._map(f"{task.layer}.bits{work.emits or ''}", task.bits, task)
        if not work.name and work.keeps == STREAM and whole:
            residual = self._map(f"{task.layer}.residual", task.residual, task)
        return Step(task.name, work.kind, words, cycles, bits, residual)

    def _geometry(self, task: Task, work: Pass) -> dict[str, int]:
        (height, width, inside), out = task.inside, task.size[2]
        if task.tile is not None:
            out = GROUP * len(task.tile)
        columns = layout.blocks(height, width)[1]
        first, wide = task.strip or (0, columns)
        added = GROUP * groups(inside if work.moves else out)
        end = task.offset + (out if work.mean else added)
        unit = self.shape.step_channels(layout.slot_width(self.width))
        kind = Kind.STEM if task.features == IMAGE else Kind.CONV
        if work.kind == "pointwise":
            kind = Kind.POINTWISE
        spec = self.network.spec
        return dict(
            kind=kind, single=work.strided,
            add=bool(task.adds), keep=bool(task.residual), emit=bool(task.bits),
            mask=spec.repair.padding == "zero" and not (kind == Kind.STEM and spec.pad),
            columns=wide - 1,
            rows=len(task.rows) - 1, odd_columns=width % 2 and first + wide == columns,
            odd_rows=height % 2 and not task.below,
            folds=work.folds - 1, groups=groups(out) - 1,
            shortcut_first=task.offset // unit, shortcut_end=end // unit,
            in_place=work.in_place, wide_out=work.wide_out, scaled=work.kind == "scale",
            centre=work.centre, mean=work.mean, spatial=work.factors is not None,
            above=task.rows.start > 0, below=task.below, more_left=first > 0,
            more_right=first + wide < columns,
        )  # fmt: skip

    def _numbers(self, place: str, kind: str | None, task: Task) -> int:
        """First word that the task uses there; of sums there are no others."""
        if kind != STREAM:
            return self.address(place)
        columns = layout.blocks(*task.inside[:2])[1]
        skipped = task.rows.start * columns + (task.strip[0] if task.strip else 0)
        before = skipped * groups(task.size[2]) + task.first_group
        return self.address(place) + before * GROUP // self.per_word

    def _layer(self, index: int, task: Task) -> Step:
        """Gates go where the weight buffer's entries for the next scale are loaded from."""
        work, tasks = task.work, self.schedule.tasks
        assert work is not None and work.weights is not None
        first, apart, gates = self.address(task.residual), 1, work.keeps == GATES
        if gates:
            works = [after.work for after in tasks[index:]]
            scale = index + next(at for at, w in enumerate(works) if w is not None and w.gated)
            first, apart = self.weights_at[scale], len(tasks[scale].entry_rows)
        count = layout.residual_words(*task.inside, self.per_word)
        quads = -(-len(work.weights) // self.shape.macs)
        words = _descriptor(
            dict(kind=Kind.HEAD, keep=1, mask=gates, wide_out=1, columns=quads - 1,
                 groups=groups(task.inside[2]) - 1, shortcut_first=apart),
            self._sources(task),
            dict(residual=first, head_words=count - 1),
            self._walk(index), self.load(index + 1),
        )  # fmt: skip
        numbers = (task.name, first, len(work.weights), apart)
        cycles = head_cycles(count, self.per_word, quads, len(task.contents))
        return Step(task.name, "layer", words, cycles, numbers=numbers)

    def _head(self, index: int, task: Task) -> Step:
        count = layout.residual_words(*task.inside, self.per_word)
        quads = self._quads(task)
        before = sum(self._quads(t) for t in self.schedule.tasks[:index] if t.gives_logits)
        logits = min(quads * self.shape.macs, task.size[2] - before * self.shape.macs)
        words = _descriptor(
            dict(kind=Kind.HEAD, last=index == len(self.schedule.tasks) - 1, columns=quads - 1,
                 groups=groups(task.inside[2]) - 1),
            self._sources(task),
            dict(head_words=count - 1),
            self._walk(index), self.load(index + 1),
        )  # fmt: skip
        results = logits + (not before)  # the first is the greatest so far
        cycles = head_cycles(count, self.per_word, quads, len(task.contents), results)
        return Step(task.name, "head", words, cycles)

    def _quads(self, task: Task) -> int:
        """Walks of the head, each of as many classes as there are multiply-accumulators."""
        return task.entries // ((GROUP * groups(task.inside[2]) + 1) * self.shape.pe)

    @property
    def image_base(self) -> int:
        """First word of the image."""
        return self.address(IMAGE)


def _descriptor(
    geometry: dict[str, Any], sources: dict[str, Any], sinks: dict[str, Any],
    walk: dict[str, Any], load: int,
) -> tuple[int, ...]:  # fmt: skip
    kinds = ((Geometry, geometry), (Sources, sources), (Sinks, sinks), (Walk, walk))
    words = (int(kind.const(fields).as_value().value) for kind, fields in kinds)
    return (*words, load)
