"""The ULX3S with an ECP5-85F: 25 MHz crystal, 16 MB SPI flash, FT231X serial port.

LEDs: 0 is ready, 1 is busy, 7 is error. The serial port is that of USB connector 1.
"""

from amaranth.build import Attrs, Platform, Resource
from amaranth.build import Pins as Sites
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from bnnhw.boards.ecp5 import LFE5U_85F, ECP5Board
from bnnhw.boards.support import Pins


def platform() -> Platform:
    """Returns Amaranth's platform with the pin that says how the ESP32 boots."""
    result = ULX3S_85F_Platform()
    result.add_resources(
        [Resource("esp32_boot", 0, Sites("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33"))]
    )
    return result


BOARD = ECP5Board.on(
    LFE5U_85F,
    name="ulx3s",
    package="CABGA381",
    speed=6,
    crystal_hz=25_000_000,
    clock_hz=48_000_000,
    memory_words=32768,
    flash_offset=0x200000,
    flash_bytes=0x1000000,
    max_baud=3_000_000,
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
