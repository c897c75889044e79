"""What the tops of all boards are made of."""

from amaranth.lib import io

from boards.board import baud_divisor
from gateware.device import Device

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
