"""What differs between families of devices in synthesis, place and route and packing."""

from __future__ import annotations

from dataclasses import dataclass

from bnnhw.flow import tools
from bnnhw.flow.tools import Tool

# No memory here is read where it is written in the same cycle, so what a collision gives need not
# be emulated.
_READ = "read_rtlil top.il\nsetparam -set COLLISION_X_MASK 1 t:$memrd_v2\n"
_WRITE = "tee -o top.stat stat\nwrite_json top.json\nwrite_verilog -noattr -simple-lhs netlist.v\n"


@dataclass(frozen=True)
class CellPins:
    """Pins of a family's cells.

    clocks : that are clocks.
    enables : {memory's resource: (pins that are 1 in a cycle in which it reads, in which it
        writes)}; of a pin after ~ that is 0.
    """

    clocks: tuple[str, ...]
    enables: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True)
class Family:
    """A family of devices and its tools.

    nextpnr, packer : place and route; from its text to the bitstream.
    synthesis : Yosys's script from top.il to top.stat, top.json and netlist.v, with {options}.
    cells : {resource: {start of a cell type's name: how many of the resource it takes}}.
    pins_of_cells : to count what a netlist does; None if Yosys cannot simulate one.
    sites : {resource: what nextpnr calls it}.
    pnr_seconds : after which place and route is given up.
    placed, bitstream : suffixes of the placed design as text, which is also nextpnr's option for
        it, and of what is loaded.
    programmers : that write it, the first being the better.
    alone : Yosys's command for an engine in a design of its own, without its options of a board.
    """

    nextpnr: Tool
    packer: Tool
    synthesis: str
    cells: dict[str, dict[str, int]]
    pins_of_cells: CellPins | None
    sites: dict[str, str]
    pnr_seconds: float
    placed: str
    bitstream: str
    programmers: tuple[str, ...]
    alone: str


# Wires are split before technology mapping: names for single bits clash with whole wires of the
# same design otherwise (github.com/YosysHQ/yosys/issues/4349). The check finds bits that packing
# DSP blocks has lost: those of a register beyond what the product before it needs.
ICE40 = Family(
    nextpnr=tools.NEXTPNR_ICE40,
    packer=tools.ICEPACK,
    synthesis=_READ
    + "synth_ice40 {options} -top top -run begin:map_ram\n"
    + "check -assert\n"
    + "synth_ice40 {options} -top top -run map_ram:map_luts\n"
    + "splitnets\n"
    + "synth_ice40 {options} -top top -run map_luts:\n"
    + _WRITE,
    cells=dict(
        lut={"SB_LUT4": 1}, ff={"SB_DFF": 1}, ebr={"SB_RAM40": 1}, spram={"SB_SPRAM": 1},
        dsp={"SB_MAC16": 1},
    ),
    pins_of_cells=CellPins(
        clocks=("C", "CLK", "CLOCK", "RCLK", "WCLK"),
        enables=dict(
            ebr=(("RE", "RCLKE"), ("WE", "WCLKE")),
            spram=(("CHIPSELECT", "~WREN"), ("CHIPSELECT", "WREN")),
        ),
    ),
    sites=dict(
        lc="ICESTORM_LC", ebr="ICESTORM_RAM", spram="ICESTORM_SPRAM", dsp="ICESTORM_DSP"
    ),
    pnr_seconds=300, placed="asc", bitstream="bin",
    programmers=("openFPGALoader", "iceprog"), alone="synth_ice40 -device u -dsp -spram",
)  # fmt: skip

ECP5 = Family(
    nextpnr=tools.NEXTPNR_ECP5,
    packer=tools.ECPPACK,
    synthesis=_READ
    + "synth_ecp5 {options} -top top -run begin:map_luts\n"
    + "splitnets\n"
    + "synth_ecp5 {options} -top top -run map_luts:\n"
    + _WRITE,
    cells=dict(
        lut={"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}, ff={"TRELLIS_FF": 1},
        ebr={"DP16KD": 1, "PDPW16KD": 1}, dsp={"MULT18X18D": 1},
    ),
    pins_of_cells=None,
    sites=dict(lut="TRELLIS_COMB", ff="TRELLIS_FF", ebr="DP16KD", dsp="MULT18X18D"),
    pnr_seconds=1800, placed="textcfg", bitstream="bit",
    programmers=("openFPGALoader",), alone="synth_ecp5 -nowidelut",
)  # fmt: skip

FAMILIES = dict(ice40=ICE40, ecp5=ECP5)
