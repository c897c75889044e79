"""The Colorlight i5 (ECP5-25F, 2 MB SPI flash) and i9 (ECP5-45F, 8 MB), on extension boards.

The crystal has 25 MHz. The one LED is ready. The serial port is that of the extension board's
debugger. Pin numbers: litex-boards, colorlight_i5.py, which has both.
"""

from dataclasses import replace

from bnnhw.boards.ecp5 import LFE5U_25F, LFE5U_45F, ECP5Board
from bnnhw.boards.numbers import Part
from bnnhw.boards.wiring import Wiring, ecp5_board

I5 = Wiring(
    clock="P3",
    rx="H18",
    tx="J17",
    leds=dict(ready="U16"),
    lit_low=True,
    select="R2",
    copi="W2",
    cipo="V2",
)


def _with(
    part: Part, name: str, wiring: Wiring, memory_words: int, flash: tuple[int, int]
) -> ECP5Board:
    return ecp5_board(
        part,
        wiring,
        site_package="BG381",
        name=name,
        package="CABGA381",
        speed=6,
        crystal_hz=25_000_000,
        memory_words=memory_words,
        flash_offset=flash[0],
        flash_bytes=flash[1],
        max_baud=1_000_000,
        loader=name.replace("_", "-"),
        load=f"openFPGALoader -b {name.replace('_', '-')} -f {{folder}}/top.bit && "
        f"openFPGALoader -b {name.replace('_', '-')} -f -o {{offset:#x}} {{folder}}/flash.bin",
    )


BOARDS = (
    _with(LFE5U_25F, "colorlight_i5", I5, 4096, (0x100000, 0x200000)),
    _with(
        LFE5U_45F, "colorlight_i9", replace(I5, leds=dict(ready="L2")), 16384, (0x200000, 0x800000)
    ),
)
