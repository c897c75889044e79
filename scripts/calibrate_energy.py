"""Derives the coefficients of bnnhw.boards.ice40.UP5K that rest on measured currents.

The currents, of the core at 1.219 V, are published at github.com/tinyvision-ai-inc/ice40_power
with what was measured: a counter; with two counters of 8 bits, stepping by 3 and 5, and their
product; with the product in a multiplier. The same circuits are synthesised and simulated here,
and what their nets do is set against the current.

    python scripts/calibrate_energy.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from bnnhw.boards.ice40 import ICE40Board
from bnnhw.cost.netlist import read_netlist
from bnnhw.flow import tools
from bnnhw.flow.families import ICE40
from bnnhw.sim.clock_bench import count

VOLTS = 1.219
HZ = 12e6
COUNTER, PRODUCT_OF_LUTS, PRODUCT_OF_DSP = 645e-6, 996e-6, 882e-6  # A, clock of 12 MHz
COUNTERS = {28: 613.5e-6, 224: 641.3e-6}  # A by flip-flops, of which two change in a cycle
PLL = {16e6: 1419e-6, 48e6: 2573e-6}  # A by the PLL's output, which clocks a counter of 24 bits
CYCLES = 256 * 8 + 1
CIRCUIT = """\
module top(input clk, output out);
  reg [23:0] counter = 0;
  always @(posedge clk) counter <= counter + 1;
`ifdef PRODUCT
  reg [7:0] a = 0, b = 0;
  always @(posedge clk) begin a <= a + 3; b <= b + 5; end
  (* keep *) wire [15:0] product = a * b;
  assign out = counter[23] | &a | &b | &product;
`else
  assign out = counter[23];
`endif
endmodule
"""


def activity(folder: Path, name: str, options: str) -> tuple[int, float, float]:
    """Flip-flops; loads and multiplier inputs, each with its driver, that change in a cycle."""
    work = folder / name
    work.mkdir(parents=True, exist_ok=True)
    (work / "top.v").write_text(CIRCUIT)
    (work / "top.ys").write_text(
        f"read_verilog {'' if name == 'counter' else '-DPRODUCT '}top.v\n"
        f"synth_ice40 -device u {options} -top top\ntee -o top.stat stat\n"
        "write_json top.json\nwrite_verilog -noattr -simple-lhs netlist.v\n"
    )
    tools.run(tools.YOSYS, ["-q", "top.ys"], cwd=work, log="yosys.log")
    netlist = read_netlist(work / "top.json", ICE40)
    counts = count(
        (work / "netlist.v").read_text(), models=ICE40Board.models,
        share=tools.yosys_share(), cycles=CYCLES,
        changed=[net.name for net in netlist.nets], folder=work / "sim",
        environment=tools.environment(),
    )  # fmt: skip
    moves = [*zip(counts.changed, netlist.nets, strict=True)]
    loads = sum(changed * (1 + net.loads) for changed, net in moves) / (CYCLES - 1)
    inner = sum(changed * net.multiplier_loads for changed, net in moves) / (CYCLES - 1)
    return netlist.flip_flops, loads, inner


def main(folder: Path) -> None:
    """Print the coefficients, in joules."""
    (few, small), (many, large) = COUNTERS.items()
    flip_flop = (large - small) * VOLTS / HZ / (many - few)
    base, in_luts, in_dsp = (
        activity(folder, name, options)
        for name, options in (("counter", ""), ("luts", ""), ("dsp", "-dsp"))
    )
    print("flip-flops, changing loads, changing inputs of the multiplier:", base, in_luts, in_dsp)
    clocked = (in_luts[0] - base[0]) * flip_flop
    load = ((PRODUCT_OF_LUTS - COUNTER) * VOLTS / HZ - clocked) / (in_luts[1] - base[1])
    inner = (PRODUCT_OF_DSP - COUNTER) * VOLTS / HZ - clocked - (in_dsp[1] - base[1]) * load
    (slow, at_slow), (fast, at_fast) = PLL.items()
    cycle = (at_fast - at_slow) * VOLTS / (fast - slow) - base[0] * flip_flop - base[1] * load
    print(f"a clock cycle of a flip-flop: {flip_flop * 1e15:.1f} fJ")
    print(f"a change of a load: {load * 1e15:.0f} fJ")
    print(f"a change of a multiplier's input: {inner / in_dsp[2] * 1e12:.2f} pJ")
    print(f"a cycle of the clock tree: {cycle * 1e12:.1f} pJ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
