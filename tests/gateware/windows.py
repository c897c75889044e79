"""The walk of a convolution as benches see it: issue, loader and window buffer on a memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from bnnhw.gateware.array import Outside
from bnnhw.gateware.buffers import WindowBuffer
from bnnhw.gateware.issue import ConvolutionIssue
from bnnhw.gateware.lane import Token
from bnnhw.gateware.loader import WindowLoader, written
from bnnhw.gateware.program import Geometry, Kind
from tests.gateware.bench import Memory

DEPTH = 64


class Probe(data.Struct):
    """What the issue says in a cycle."""

    token: Token
    first: 1
    retire: 1
    weight_entry: 8
    outside: Outside


class Windows(wiring.Component):
    """The three as the engine wires them, reading maps from a memory in order."""

    start: In(1)
    base: In(14)
    geometry: In(Geometry)

    def __init__(self, parameters, words):
        super().__init__()
        self.parameters = parameters
        self.memory = Memory(words)
        self.issue = ConvolutionIssue(parameters)
        self.loader = WindowLoader(parameters)
        self.buffer = WindowBuffer(depth=parameters.window_depth)
        self.probe = Signal(Probe)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory
        m.submodules.issue = issue = self.issue
        m.submodules.loader = loader = self.loader
        m.submodules.buffer = buffer = self.buffer
        taken = memory.fetch.request & memory.fetch.grant
        word = memory.fetch.data
        if self.parameters.own_stream:  # a register hands it on
            word = Signal.like(memory.fetch.data)
            m.d.sync += word.eq(memory.fetch.data)
        word = written(self.parameters, word, loader)
        m.d.comb += [
            issue.start.eq(self.start),
            issue.geometry.eq(self.geometry),
            issue.ahead.eq(loader.ahead),
            loader.start.eq(self.start),
            loader.geometry.eq(self.geometry),
            loader.retire.eq(issue.retire),
            loader.grant.eq(taken),
            memory.fetch.request.eq(loader.request),
            buffer.rows.eq(issue.rows),
            buffer.columns.eq(issue.columns),
            buffer.write.eq(loader.write),
            buffer.write_row.eq(loader.write_row),
            buffer.write_column.eq(loader.write_column),
            buffer.write_data.eq(word),
            self.probe.token.eq(issue.token),
            self.probe.first.eq(issue.first),
            self.probe.retire.eq(issue.retire),
            self.probe.weight_entry.eq(issue.weight_entry),
            self.probe.outside.eq(issue.outside),
        ]
        with m.If(taken):
            strip = self.geometry.more_left | self.geometry.more_right
            gap = Mux(loader.row_end & strip, self.parameters.strip_gap or 0, 0)
            m.d.sync += memory.fetch.address.eq(memory.fetch.address + 1 + gap)
        with m.If(self.start):
            m.d.sync += memory.fetch.address.eq(self.base)
        return m


def convolution(height, width, folds, groups, *, mask, add=0, shortcut=(0, 0)):
    return dict(
        kind=Kind.CONV, mask=mask, add=add, columns=-(-width // 2) - 1, rows=-(-height // 2) - 1,
        odd_columns=width % 2, odd_rows=height % 2, folds=folds - 1, groups=groups - 1,
        shortcut_first=shortcut[0], shortcut_end=shortcut[1],
    )  # fmt: skip
