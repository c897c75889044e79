"""The ULX3S with an ECP5-12F to -85F: 25 MHz crystal, SPI flash, FT231X serial port.

LEDs: 0 is ready, 1 is busy, 7 is error. The serial port is that of USB connector 1.
"""

from amaranth.build import Attrs, Platform, Resource
from amaranth.build import Pins as Sites
from amaranth_boards.ulx3s import (
    ULX3S_12F_Platform,
    ULX3S_25F_Platform,
    ULX3S_45F_Platform,
    ULX3S_85F_Platform,
)

from bnnhw.boards.ecp5 import LFE5U_12F, LFE5U_25F, LFE5U_45F, LFE5U_85F, ECP5Board
from bnnhw.boards.numbers import Part
from bnnhw.boards.support import Pins


def _with(
    part: Part, kind: type[Platform], *, name: str, memory_words: int, flash_bytes: int
) -> ECP5Board:
    """Returns the board with a part; the smaller ones are sold with smaller flashes, too."""

    def platform() -> Platform:
        """Returns Amaranth's platform with the pin that says how the ESP32 boots."""
        result = kind()
        result.add_resources(
            [Resource("esp32_boot", 0, Sites("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33"))]
        )
        return result

    return ECP5Board.on(
        part,
        name=name,
        package="CABGA381",
        speed=6,
        crystal_hz=25_000_000,
        clock_hz=48_000_000,
        memory_words=memory_words,
        flash_offset=0x200000,
        flash_bytes=flash_bytes,
        max_baud=3_000_000,
        loader="ulx3s",
        usb=(0x0403, 0x6015, 0),
        load="openFPGALoader -b ulx3s -f {folder}/top.bit && "
        "openFPGALoader -b ulx3s -f -o {offset:#x} {folder}/flash.bin",
        platform=platform,
        pins=Pins(
            flash=("spi_flash", 0),
            leds=dict(ready=("led", 0), busy=("led", 1), error=("led", 7)),
            # Low, which an idle pin is, it would have the ESP32 boot from its serial port.
            held=dict(boot=(("esp32_boot", 0), 1)),
        ),
    )


BOARD = _with(
    LFE5U_85F, ULX3S_85F_Platform, name="ulx3s", memory_words=32768, flash_bytes=0x1000000
)
BOARDS = (
    BOARD,
    *(
        _with(part, kind, name=name, memory_words=words, flash_bytes=0x400000)
        for part, kind, name, words in (
            (LFE5U_12F, ULX3S_12F_Platform, "ulx3s_12f", 4096),
            (LFE5U_25F, ULX3S_25F_Platform, "ulx3s_25f", 4096),
            (LFE5U_45F, ULX3S_45F_Platform, "ulx3s_45f", 16384),
        )
    ),
)
