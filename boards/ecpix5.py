"""The ECPIX-5 with an ECP5-5G 45F or 85F: 100 MHz crystal, 32 MB SPI flash, FT2232H serial port.

LEDs: green of lamp 0 is ready, blue is busy, red is error. Of the flash the first 16 MB are used,
which 24 bits of address reach. Pin numbers: amaranth-boards, ecpix5.py.
"""

from bnnhw.boards.ecp5 import LFE5UM5G_45F, LFE5UM5G_85F, ECP5Board
from bnnhw.boards.numbers import Part
from bnnhw.boards.wiring import Wiring, ecp5_board

WIRING = Wiring(
    clock="K23",
    rx="R26",
    tx="R24",
    leds=dict(ready="R21", busy="T22", error="T23"),
    lit_low=True,
    select="AA2",
    copi="AD2",
    cipo="AE2",
    high=dict(write_protect="AF2", hold="AE1"),
)


def _with(part: Part, name: str, memory_words: int) -> ECP5Board:
    return ecp5_board(
        part,
        WIRING,
        site_package="BG554",
        name=name,
        package="CABGA554",
        speed=8,
        crystal_hz=100_000_000,
        memory_words=memory_words,
        flash_offset=0x200000,
        flash_bytes=0x1000000,
        max_baud=3_000_000,
        loader="ecpix5",
        usb=(0x0403, 0x6010, 1),
        load="openFPGALoader -b ecpix5 -f {folder}/top.bit && "
        "openFPGALoader -b ecpix5 -f -o {offset:#x} {folder}/flash.bin",
    )


BOARDS = (_with(LFE5UM5G_45F, "ecpix5_45", 16384), _with(LFE5UM5G_85F, "ecpix5_85", 32768))
