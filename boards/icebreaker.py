"""The iCEBreaker: iCE40UP5K-SG48, 12 MHz crystal, 16 MB SPI flash, FT2232H serial port.

LEDs: green (37) is ready, red (11) is error, and the green LED on pin 8 of the break-off part is
busy. The serial port is that of the USB cable.
"""

from amaranth.build import Platform
from amaranth_boards.icebreaker import ICEBreakerPlatform

from bnnhw.boards.ice40 import UP5K, ICE40Board
from bnnhw.boards.support import Pins


def platform() -> Platform:
    """Returns Amaranth's platform with the LEDs of the break-off part."""
    result = ICEBreakerPlatform()
    result.add_resources(result.break_off_pmod)
    return result


BOARD = ICE40Board.on(
    UP5K,
    name="icebreaker",
    package="SG48",
    crystal_hz=12_000_000,
    clock_hz=24_000_000,
    flash_offset=0x100000,
    flash_bytes=0x1000000,
    max_baud=3_000_000,
    larger="ulx3s",
    loader="ice40_generic",
    usb=(0x0403, 0x6010, 1),
    load="iceprog {folder}/top.bin && iceprog -o {offset:#x} {folder}/flash.bin",
    platform=platform,
    pins=Pins(
        flash=("spi_flash_1x", 0),
        quad=("spi_flash_4x", 0),
        leds=dict(ready=("led_g", 0), error=("led_r", 0), busy=("led_g", 3)),
    ),
)
