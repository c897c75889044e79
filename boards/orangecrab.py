"""The OrangeCrab r0.2 with an ECP5-25F or -85F: 48 MHz crystal, 16 MB SPI flash.

LEDs: green is ready, blue is busy, red is error, all of the one lamp. The board has no serial port
of its own: an adapter of 3.3 V goes to the pins 0, on which the board receives, and 1. Pin numbers:
amaranth-boards, orangecrab_r0_2.py. The bootloader's megabytes stay as they are.
"""

from bnnhw.boards.ecp5 import LFE5U_25F, LFE5U_85F, ECP5Board
from bnnhw.boards.numbers import Part
from bnnhw.boards.wiring import Wiring, ecp5_board

WIRING = Wiring(
    clock="A9",
    rx="N17",
    tx="M18",
    leds=dict(ready="M3", busy="J3", error="K4"),
    lit_low=True,
    select="U17",
    copi="U18",
    cipo="T18",
    high=dict(write_protect="R18", hold="N18"),
)


def _with(part: Part, name: str, memory_words: int) -> ECP5Board:
    return ecp5_board(
        part,
        WIRING,
        site_package="MG285",
        name=name,
        package="CSFBGA285",
        speed=8,
        crystal_hz=48_000_000,
        memory_words=memory_words,
        flash_offset=0x400000,
        flash_bytes=0x1000000,
        max_baud=1_000_000,
        loader="orangeCrab",
        bitstream_offset=0x80000,
        load="openFPGALoader -b orangeCrab -f -o 0x80000 {folder}/top.bit && "
        "openFPGALoader -b orangeCrab -f -o {offset:#x} {folder}/flash.bin",
    )


BOARDS = (_with(LFE5U_25F, "orangecrab_25f", 4096), _with(LFE5U_85F, "orangecrab_85f", 32768))
