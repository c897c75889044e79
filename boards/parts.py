"""What the tops of all boards are made of."""

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io
from amaranth.lib.wiring import connect

from bnnhw.boards.board import baud_divisor
from bnnhw.gateware.device import Device

SILENCE_SECONDS = 0.15  # that spoil a frame


def make_device(board, engine, clock_hz, *, frame_bytes, n_results, boot_length):
    """The serial port's baud and the Device, for a Board and the clock that its PLL makes."""
    baud, divisor = baud_divisor(clock_hz, board.max_baud)
    device = Device(
        engine,
        frame_bytes=frame_bytes,
        n_results=n_results,
        boot_offset=board.flash_offset,
        boot_length=boot_length,
        uart_divisor=divisor,
        timeout_bits=int(clock_hz * SILENCE_SECONDS).bit_length(),
    )
    return baud, device


class BoardTop(Elaboratable):
    """The whole design on a board, but for its pins, which a board's own adds.

    Parameters
    ----------
    engine : component    as gateware.device.Device wants it
    settings              of the board's PLL
    sizes : int           frame_bytes, n_results and boot_length, as there
    """

    def __init__(self, board, settings, engine, **sizes):
        self.settings = settings
        self.baud, self._device = make_device(board, engine, settings.output_hz, **sizes)

    def _assemble(self, clock, memory):
        """A Module of the device on its clock and with its memory."""
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.clock = clock
        m.submodules.device = self._device
        m.submodules.memory = memory
        connect(m, self._device.memory, memory.port)
        return m


def input_pin(m, name, port):
    """The signal of an input port, whose buffer becomes a submodule."""
    buffer = io.Buffer("i", port)
    m.submodules[f"{name}_buffer"] = buffer
    return buffer.i


def output_pin(m, name, port, value):
    """Drive an output port, whose buffer becomes a submodule."""
    buffer = io.Buffer("o", port)
    m.submodules[f"{name}_buffer"] = buffer
    m.d.comb += buffer.o.eq(value)


def text(content):
    """A prepared file as text."""
    return content.decode() if isinstance(content, bytes) else content
