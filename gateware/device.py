"""An engine with its boot flash and its serial port: everything on a chip but clock and memory."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import cdc, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bnnhw.gateware.checks import check
from bnnhw.gateware.flash import FlashReader
from bnnhw.gateware.frames import Inbox, Outbox
from bnnhw.gateware.memory import MemorySignature
from bnnhw.gateware.qspi import QuadReader
from bnnhw.gateware.uart import Receiver, Transmitter
from bnnhw.gateware.wire import CHECK_START, header_bytes


class Device(wiring.Component):
    """Boots an engine from the flash, then answers the host's frames.

    Parameters
    ----------
    engine : component       with memory, load, run, ready, pixels, results, busy
    frame_bytes : int        bytes of an image
    n_results : int          words of an answer: the logits, the class and the cycles
    boot_offset : int        address of the boot image in the flash
    boot_length : int        bytes of its payload; of a stream nibbles
    uart_divisor : int       clock cycles a bit of the serial port
    timeout_bits : int       2**timeout_bits bit times of silence end a frame
    check_start : int        what the boot image's check sum starts from
    warm_up : bool           as gateware.flash has it

    Members
    -------
    memory : Out(MemorySignature)     the engine's
    stream : Out(MemorySignature)     another of it, if it has one
    rx : In(1)                        asynchronous; synchronised here
    tx : Out(1)                       registered; 1 when idle
    flash_select, flash_clock, flash_copi : Out(1)    as gateware.flash has them
    flash_cipo : In(1)                as there
    flash_o, flash_oe : Out(4)        of a quad flash in place of copi and cipo, as gateware.qspi
    flash_i : In(4)                   has them, with its `flash_clock`
    ready : Out(1)                    booted, the engine is ready, and no image is worked on
    busy : Out(1)                     an image is being worked on; never before it has booted
    error : Out(1)                    the boot image is wrong, for good; the engine does not run

    An engine that takes program and weights as a stream of words has them from a quad flash while
    it works. `error` may come late then: the answer at work is spoiled, or, if it has begun, broken
    off.
    """

    def __init__(
        self,
        engine: Any,
        *,
        frame_bytes: int,
        n_results: int,
        boot_offset: int,
        boot_length: int,
        uart_divisor: int,
        timeout_bits: int,
        check_start: int = CHECK_START,
        warm_up: bool = False,
    ) -> None:
        self._engine = engine
        self.streams = "words" in engine.signature.members
        sizes = dict(
            offset=boot_offset, header_bytes=header_bytes(frame_bytes, n_results - 2),
            length=boot_length, check_start=check_start,
        )  # fmt: skip
        self._flash: Any = (
            QuadReader(**sizes) if self.streams else FlashReader(**sizes, warm_up=warm_up)
        )
        self._inbox = Inbox(frame_bytes=frame_bytes)
        self._timeout_bits = timeout_bits
        self._outbox = Outbox(results=n_results if self.streams else None)
        self._receiver = Receiver(uart_divisor)
        self._transmitter = Transmitter(uart_divisor)
        stream = dict(engine.signature.members).get("stream")
        single = {"flash_copi": Out(1), "flash_cipo": In(1)}
        quad = {"flash_o": Out(4), "flash_oe": Out(4), "flash_i": In(4)}
        super().__init__(
            ({} if stream is None else {"stream": stream})
            | {
                "memory": Out(MemorySignature()),
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "flash_select": Out(1),
                "flash_clock": Out(1),
                **(quad if self.streams else single),
                "ready": Out(1),
                "busy": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self._engine
        m.submodules.flash = flash = self._flash
        m.submodules.inbox = inbox = self._inbox
        m.submodules.outbox = outbox = self._outbox
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        m.submodules.rx_sync = cdc.FFSynchronizer(self.rx, receiver.line, init=1)

        connect(m, engine.memory, flipped(self.memory))
        if "stream" in self.signature.members:
            connect(m, engine.stream, flipped(self.stream))
        if not self.streams:
            connect(m, flash.o, engine.load)
        connect(m, flash.header, outbox.header)
        connect(m, receiver.o, inbox.received)
        connect(m, outbox.answer, transmitter.i)
        silence = Signal(self._timeout_bits + 1)
        with m.If(~inbox.waiting):
            m.d.sync += silence.eq(0)
        with m.Elif(transmitter.tick):
            m.d.sync += silence.eq(silence + 1)
        connect(m, inbox.pixels, engine.pixels)
        connect(m, engine.results, outbox.results)
        for name in ("taken", "spoiled", "tag", "identify", "status"):
            m.d.comb += getattr(outbox, name).eq(getattr(inbox, name))
        running = Signal()  # its resident weights are in: an image may come
        booted = Signal()  # a register: it is far from most of what waits for it
        wrong = self._stream(m, booted) if self.streams else self._boot(m, platform, booted)
        m.d.comb += [
            running.eq(booted & engine.ready),
            inbox.shift.eq(receiver.shift),
            inbox.bit.eq(receiver.line),
            inbox.late.eq(silence[-1]),
            outbox.index.eq(transmitter.index),
            inbox.enable.eq(running),
            inbox.free.eq(outbox.free),
            outbox.last.eq(flash.last),
            outbox.flags.eq(Cat(running, wrong, engine.busy, engine.pixels.ready)),
            flash.read.eq(outbox.read),
            engine.run.eq(booted),
            self.tx.eq(transmitter.line),
            self.flash_select.eq(flash.select),
            self.flash_clock.eq(flash.clock),
            *self._wires(),
            self.ready.eq(running & ~engine.busy),
            self.busy.eq(engine.busy),
            self.error.eq(wrong),
        ]
        return m

    def _boot(self, m: Module, platform: object, booted: Signal) -> Value:
        """The boot image is read once. Returns whether it is wrong."""
        flash, engine = self._flash, self._engine
        m.d.sync += booted.eq(flash.done & ~flash.error)
        check(m, platform, ~booted | ~flash.o.valid, "the boot image goes on while the engine runs")
        check(m, platform, booted | ~engine.busy, "the engine is busy before it runs")
        check(m, platform, ~(engine.run & flash.error), "the engine runs a wrong boot image")
        return flash.error

    def _wires(self) -> list[Any]:
        """The flash's data."""
        flash = self._flash
        if not self.streams:
            return [self.flash_copi.eq(flash.copi), flash.cipo.eq(self.flash_cipo)]
        return [
            self.flash_o.eq(flash.o),
            self.flash_oe.eq(flash.oe),
            flash.i.eq(self.flash_i),
        ]

    def _stream(self, m: Module, booted: Signal) -> Value:
        """The stream was right once and is read for each frame. Returns whether it is wrong."""
        flash = self._flash
        connect(m, self._engine.words, flash.words)
        m.d.sync += booted.eq(flash.ready & ~flash.fault)
        m.d.comb += self._outbox.failed.eq(flash.fault)
        return flash.fault
