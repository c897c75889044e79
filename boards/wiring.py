"""Where a design's ports are on a board, as data, and Amaranth's platform of that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amaranth.build import Attrs, Clock, Pins, PinsN, Resource, Subsignal
from amaranth.vendor import LatticeECP5Platform, LatticeICE40Platform

from bnnhw.boards.ecp5 import ECP5Board
from bnnhw.boards.numbers import Part
from bnnhw.boards.support import Pins as BoardPins

ECP5, ICE40 = LatticeECP5Platform, LatticeICE40Platform
STANDARDS: Mapping[type, Mapping[str, str]] = {
    ECP5: dict(IO_TYPE="LVCMOS33"),
    ICE40: dict(IO_STANDARD="SB_LVCMOS"),
}


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Sites of a package, all of 3.3 V.

    clock : of the crystal. rx, tx : of the serial port, as the device sees it.
    leds : of `ready`, `busy` and `error`, as many as there are. lit_low : whether 0 lights them.
    select, copi, cipo : of the flash. flash_clock : where a pin has it.
    high : pins that are to be 1, such as the flash's hold and write protect.
    """

    clock: str
    rx: str
    tx: str
    leds: Mapping[str, str]
    lit_low: bool = False
    select: str
    copi: str
    cipo: str
    flash_clock: str | None = None
    high: Mapping[str, str] = field(default_factory=dict)

    @property
    def pins(self) -> BoardPins:
        """The same by the names of the platform's resources."""
        return BoardPins(
            flash=("flash", 0),
            leds={name: ("led", number) for number, name in enumerate(self.leds)},
            held={name: (("high", number), 1) for number, name in enumerate(self.high)},
        )

    def resources(self, kind: type, crystal_hz: int) -> list[Resource]:
        """Returns Amaranth's resources for a platform of a kind."""
        io = Attrs(**STANDARDS[kind])
        flash = [
            Subsignal("cs", PinsN(self.select, dir="o")),
            Subsignal("copi", Pins(self.copi, dir="o")),
            Subsignal("cipo", Pins(self.cipo, dir="i")),
        ]
        if self.flash_clock:
            flash.append(Subsignal("clk", Pins(self.flash_clock, dir="o")))
        lit, high = enumerate(self.leds.values()), enumerate(self.high.values())
        line = Subsignal("rx", Pins(self.rx, dir="i")), Subsignal("tx", Pins(self.tx, dir="o"))
        return [
            Resource("clk", 0, Pins(self.clock, dir="i"), Clock(crystal_hz), io),
            Resource("uart", 0, *line, io),
            Resource("flash", 0, *flash, io),
            *(Resource("led", n, Pins(pin, dir="o", invert=self.lit_low), io) for n, pin in lit),
            *(Resource("high", n, Pins(pin, dir="o"), io) for n, pin in high),
        ]


def ecp5_board(
    part: Part, wiring: Wiring, *, site_package: str, speed: int, crystal_hz: int, **numbers: Any
) -> ECP5Board:
    """Returns a board with an ECP5 of this wiring, at 48 MHz unless the user asks for another.

    site_package : the package as Amaranth writes it. numbers : as ECP5Board.on has them.
    """
    platform = platform_of(
        ECP5, wiring, crystal_hz=crystal_hz, device=part.device, package=site_package,
        speed=str(speed),
    )  # fmt: skip
    return ECP5Board.on(
        part, speed=speed, crystal_hz=crystal_hz, clock_hz=48_000_000, platform=platform,
        pins=wiring.pins, **numbers,
    )  # fmt: skip


def platform_of(kind: type, wiring: Wiring, *, crystal_hz: int, **device: Any) -> Any:
    """Returns a function that makes the platform; device : its device, package and speed."""
    members = dict(
        default_clk="clk", connectors=[], resources=wiring.resources(kind, crystal_hz), **device
    )
    return type("Platform", (kind,), members)
