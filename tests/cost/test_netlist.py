"""A netlist worked out by hand: two LUTs, flip-flops, a multiplier and memories."""

import json

import pytest

from bnnhw.cost.netlist import Net, read_netlist
from bnnhw.errors import UserError
from bnnhw.flow.families import ECP5, ICE40

DIRECTIONS = dict(O="output", Q="output", RDATA="output", DATAOUT="output", PACKAGE_PIN="inout")


def cell(kind, **pins):
    return dict(
        type=kind,
        port_directions={p: DIRECTIONS.get(p, "input") for p in pins},
        connections={p: bits if isinstance(bits, list) else [bits] for p, bits in pins.items()},
    )


def written(folder, **cells):
    """Nets: 2 the clock, 3 a, 4 b[5], 5 b[6], 6 c.d, 7 x, which no cell drives, 8 y, 9 p."""
    names = dict(
        clk=dict(bits=[2]), a=dict(bits=[3], offset=1), b=dict(bits=[4, 5], offset=5),
        same=dict(bits=["1", "0"]), x=dict(bits=[7]), y=dict(bits=[8]), p=dict(bits=[9]),
    ) | {"c.d": dict(bits=[6])}  # fmt: skip
    path = folder / "top.json"
    path.write_text(json.dumps(dict(modules=dict(top=dict(cells=cells, netnames=names)))))
    return path


def test_nets_have_the_loads_of_all_pins_but_clocks(tmp_path):
    netlist = read_netlist(
        written(
            tmp_path,
            lut=cell("SB_LUT4", O=3, I0=4, I1=4, I2="1", I3=6),
            ff=cell("SB_DFFE", Q=4, D=3, E=7, C=2),
            other=cell("SB_DFF", Q=5, D=4, C=2),
            mac=cell("SB_MAC16", O=[6, 8], A=[3, 3, 4], B=["0"], CLK=2, CE=7),
            pin=cell("SB_IO", PACKAGE_PIN=9, D_OUT_0=4),
            scope=cell("$scopeinfo"),
        ),
        ICE40,
    )
    assert netlist.clock == "clk" and netlist.flip_flops == 2
    names = {net.name: net for net in netlist.nets}
    assert names["a"] == Net("a", 1, 2)
    assert names["b[5]"] == Net("b[5]", 4, 1)
    assert names["b[6]"] == Net("b[6]", 0, 0)
    assert names["\\c.d "] == Net("\\c.d ", 1, 0)
    assert names["y"] == Net("y", 0, 0) and {"x", "clk", "p"}.isdisjoint(names)


def test_memories_are_on_when_their_enables_are(tmp_path):
    netlist = read_netlist(
        written(
            tmp_path,
            ff=cell("SB_DFF", Q=3, D=3, C=2),
            ram=cell("SB_RAM40_4K", RDATA=[4], RE="1", RCLKE=3, WE=7, WCLKE="0", RCLK=2),
            spram=cell("SB_SPRAM256KA", DATAOUT=[5], CHIPSELECT="1", WREN=6, CLOCK=2),
        ),
        ICE40,
    )
    assert netlist.ebr == (("(1'b1 & a)", "(x & 1'b0)"),)
    assert netlist.spram == (("(1'b1 & ~\\c.d )", "(1'b1 & \\c.d )"),)


def test_a_family_whose_netlists_cannot_be_simulated_is_refused(tmp_path):
    with pytest.raises(UserError, match="nextpnr-ecp5 cannot be simulated"):
        read_netlist(written(tmp_path), ECP5)
