"""What a board has beside its numbers: clock, memory, pins, and the whole design on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from amaranth.build import Platform
from amaranth.hdl import ClockDomain, Const, Elaboratable, Module, ValueLike
from amaranth.lib import io, wiring
from amaranth.lib.wiring import connect

from bnnhw.boards.bench import Bench, Models
from bnnhw.boards.numbers import ONE_MEMORY, Board, Memories, baud_divisor
from bnnhw.gateware.device import Device
from bnnhw.gateware.wire import CHECK_START

SILENCE_SECONDS = 0.15  # that spoil a frame
Resource = tuple[str, int]  # name and number of one of a platform's resources


class Settings(Protocol):
    """Settings of a family's PLL. output_hz : the clock that they make."""

    @property
    def output_hz(self) -> float: ...


@dataclass(frozen=True)
class Pins:
    """Where a design's ports are on a board.

    leds : of `ready`, `busy` and `error`. held : pins that keep a level, {name: (resource, level)}.
    The serial port and the flash are the resources `uart` and `flash`. quad : the flash with four
    wires, dq, where they are there and its clock is a pin.
    """

    leds: Mapping[str, Resource]
    flash: Resource
    uart: Resource = ("uart", 0)
    held: Mapping[str, tuple[Resource, int]] = field(default_factory=dict)
    quad: Resource | None = None


@dataclass(frozen=True, kw_only=True)
class BoardSupport(Board, ABC):
    """A board that designs can be made for; families derive from it, boards are objects of those.

    platform : makes Amaranth's platform, with the board's resources. pins : which of them are used.
    models : of the family's primitives.
    flash_clock : as in bnnhw.boards.bench. flash_warm_up : whether the first edges are lost.
    """

    models: ClassVar[Models]
    flash_clock: ClassVar[str | None] = None
    flash_warm_up: ClassVar[bool] = False
    platform: Callable[[], Platform]
    pins: Pins

    @abstractmethod
    def pll(self, clock_hz: float) -> Settings:
        """Returns the settings whose output is nearest to clock_hz without passing it.

        Raises ValueError outside the range of clocks that designs run at.
        """

    @abstractmethod
    def clock(self, settings: Settings) -> Elaboratable:
        """Returns what drives the clock of domain sync, which has no reset, from the crystal.

        The clock starts when the PLL has locked, glitch-free: flip-flops then still hold their
        values from the configuration, so no reset is needed.
        """

    @abstractmethod
    def memory(self, words: int | None = None) -> Any:
        """Returns the large memory, an Elaboratable with `port`, a flipped MemorySignature.

        words : that it has at least, where it is made of block RAMs; None: as many as there are.
        """

    def stream_memory(self, words: int, width: int, slot_width: int) -> Any:
        """Returns a memory for the residual stream alone, as `memory`; slots are written apart."""
        raise NotImplementedError(f"{self.name}: has no block RAMs for a residual stream")

    @abstractmethod
    def clock_flash(self, m: Module, device: Device) -> None:
        """Bring the flash its clock where no pin does."""

    @property
    def streams(self) -> bool:
        return self.pins.quad is not None

    def bench(self, *, streams: bool = False) -> Bench:
        """Returns how the top stands in a simulation. streams : the engine's words are streamed."""
        platform, pins = self.platform(), self.pins
        chip = pins.quad if streams and pins.quad else pins.flash
        flash = {"cs": "select_n", "clk": "clock", "wp": "wp_n", "hold": "hold_n"}
        ports = {_port((platform.default_clk, 0)): "clk_pin"}
        ports |= {_port(pins.uart, "rx"): "rx_pin", _port(pins.uart, "tx"): "tx"}
        for part in platform.lookup(*chip).ios:
            ports[_port(chip, part.name)] = flash.get(part.name, part.name)
        ports |= {_port(led): name for name, led in pins.leds.items()}
        ports |= {_port(pin): "" for pin, _ in pins.held.values()}
        low = {name for name, led in pins.leds.items() if platform.lookup(*led).ios[0].invert}
        return Bench(self.models, ports, frozenset(low), self.flash_clock, streams)

    def made_hz(self, clock_hz: float | None = None) -> float:
        """Returns what the PLL makes of a clock, of the board's own if none is given."""
        return float(self.pll(self.clock_hz if clock_hz is None else clock_hz).output_hz)

    def top(
        self, engine: wiring.Component, *, clock_hz: float, memories: Memories = ONE_MEMORY,
        **sizes: int,
    ) -> "Top":  # fmt: skip
        """Returns the whole design around an engine, at the clock the PLL makes of clock_hz.

        sizes : frame_bytes, n_results, boot_length and, unless the gateware is to take any boot
            image of these, check_start, as bnnhw.gateware.device has them.
        """
        return Top(self, engine, clock_hz=clock_hz, memories=memories, **sizes)

    def prepare(self, top: "Top") -> dict[str, str]:
        """Returns {file name: text} of a Top: its RTLIL (top.il) and its pins (top.`constraints`).

        No source file is named in it: the design is the same wherever bnnhw lies.
        """
        files = self.platform().prepare(top, "top", emit_src=False).files
        return {name: _text(files[name]) for name in ("top.il", f"top.{self.constraints}")}


class Top(Elaboratable):
    """The whole design on a board: a Device on its clock, with its memory and its pins.

    Parameters
    ----------
    board : BoardSupport
    engine : component    as bnnhw.gateware.device wants it
    clock_hz : float      wanted; `settings` has what the PLL makes of it
    memories : Memories   of the engine
    frame_bytes, n_results, boot_length, check_start : int    as there

    Attributes
    ----------
    settings              of the board's PLL
    baud : int            of the serial port
    """

    def __init__(
        self,
        board: BoardSupport,
        engine: wiring.Component,
        *,
        clock_hz: float,
        memories: Memories,
        frame_bytes: int,
        n_results: int,
        boot_length: int,
        check_start: int = CHECK_START,
    ) -> None:
        self._board, self._memories = board, memories
        self.settings = board.pll(clock_hz)
        made = self.settings.output_hz
        self.baud, divisor = baud_divisor(made, board.max_baud)
        self._device = Device(
            engine,
            frame_bytes=frame_bytes,
            n_results=n_results,
            boot_offset=board.flash_offset,
            boot_length=boot_length,
            uart_divisor=divisor,
            timeout_bits=int(self.baud * SILENCE_SECONDS).bit_length(),
            check_start=check_start,
            warm_up=board.flash_warm_up,
        )

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        device, pins = self._device, self._board.pins
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.clock = self._board.clock(self.settings)
        m.submodules.device = device
        has = self._memories
        m.submodules.memory = memory = self._board.memory(has.words)
        connect(m, device.memory, memory.port)
        if has.stream_words:
            width = len(device.stream.write_data)
            m.submodules.stream_memory = stream = self._board.stream_memory(
                has.stream_words, width, has.slot_width
            )
            connect(m, device.stream, stream.port)

        chip = pins.quad if device.streams else pins.flash
        if chip is None:
            raise NotImplementedError(f"{self._board.name}: has no quad flash")
        uart, flash = (platform.request(*pin, dir="-") for pin in (pins.uart, chip))
        m.d.comb += device.rx.eq(input_pin(m, "rx", uart.rx))
        if not device.streams:
            m.d.comb += device.flash_cipo.eq(input_pin(m, "cipo", flash.cipo))
            self._board.clock_flash(m, device)
        output_pin(m, "tx", uart.tx, device.tx)
        (self._quad if device.streams else self._single)(m, flash)
        for name, led in pins.leds.items():
            output_pin(m, f"led_{name}", platform.request(*led, dir="-"), getattr(device, name))
        for name, (pin, level) in pins.held.items():
            output_pin(m, name, platform.request(*pin, dir="-"), Const(level, 1))
        return m

    def _single(self, m: Module, flash: Any) -> None:
        """The outputs to a flash with one wire each way."""
        device = self._device
        output_pin(m, "flash_select", flash.cs, device.flash_select)
        if hasattr(flash, "clk"):
            output_pin(m, "flash_clock", flash.clk, device.flash_clock)
        output_pin(m, "flash_copi", flash.copi, device.flash_copi)
        for name in ("wp", "hold"):
            if hasattr(flash, name):
                output_pin(m, f"flash_{name}", getattr(flash, name), Const(0, 1))

    def _quad(self, m: Module, flash: Any) -> None:
        """A flash with four wires: all pins have registers, and the clock's pulses, in the second
        half of a cycle, are those of a register for each half."""
        device = self._device
        m.submodules.flash_clock_buffer = clock = io.DDRBuffer("o", flash.clk)
        m.submodules.flash_select_buffer = select = io.FFBuffer("o", flash.cs)
        m.d.comb += [clock.o[1].eq(device.flash_clock), select.o.eq(device.flash_select)]
        for wire in range(len(flash.dq)):
            m.submodules[f"flash_dq{wire}_buffer"] = pin = io.FFBuffer("io", flash.dq[wire])
            m.d.comb += [
                pin.o.eq(device.flash_o[wire]),
                pin.oe.eq(device.flash_oe[wire]),
                device.flash_i[wire].eq(pin.i),
            ]


def input_pin(m: Module, name: str, port: io.PortLike) -> Any:
    """Returns the signal of an input port, whose buffer becomes a submodule."""
    buffer = io.Buffer("i", port)
    m.submodules[f"{name}_buffer"] = buffer
    return buffer.i


def output_pin(m: Module, name: str, port: io.PortLike, value: ValueLike) -> None:
    """Drive an output port, whose buffer becomes a submodule."""
    buffer = io.Buffer("o", port)
    m.submodules[f"{name}_buffer"] = buffer
    m.d.comb += buffer.o.eq(value)


def _port(pin: Resource, part: str = "") -> str:
    """Returns the name of the top's port for a resource, or for a part of it."""
    name, number = pin
    return "__".join(filter(None, [f"{name}_{number}", part, "io"]))


def _text(content: bytes | str) -> str:
    return content.decode() if isinstance(content, bytes) else content
