// A top whose only input is its clock: runs it for some cycles, all of which sim/toggles.py counts.

module clock_bench (
    input clk /* verilator public_flat_rw */
);
  top dut (.clk(clk));
endmodule
