"""The UPduino v3: iCE40UP5K-SG48, 12 MHz oscillator, 4 MB SPI flash.

The jumper OSC, which brings the oscillator to pin 20, must be soldered: the device's own is too far
from its frequency for a serial port. The USB chip's lines are the flash's, so an adapter of 3.3 V
goes to pin 28, on which the board receives, and 38. LEDs: green is ready, blue is busy, red is
error, all of the one lamp. Pin numbers: amaranth-boards, upduino_v3.py.
"""

from bnnhw.boards.ice40 import UP5K, ICE40Board
from bnnhw.boards.wiring import ICE40, Wiring, platform_of

WIRING = Wiring(
    clock="20",
    rx="28",
    tx="38",
    leds=dict(ready="39", busy="40", error="41"),
    lit_low=True,
    select="16",
    copi="14",
    cipo="17",
    flash_clock="15",
)
CRYSTAL_HZ = 12_000_000

BOARD = ICE40Board.on(
    UP5K,
    name="upduino_v3",
    package="SG48",
    crystal_hz=CRYSTAL_HZ,
    clock_hz=24_000_000,
    flash_offset=0x100000,
    flash_bytes=0x400000,
    max_baud=1_000_000,
    loader="ice40_generic",
    larger="ulx3s",
    load="iceprog {folder}/top.bin && iceprog -o {offset:#x} {folder}/flash.bin",
    platform=platform_of(ICE40, WIRING, crystal_hz=CRYSTAL_HZ, device="iCE40UP5K", package="SG48"),
    pins=WIRING.pins,
    clock_at_pll=False,
)
