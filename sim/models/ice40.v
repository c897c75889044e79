// Primitives whose models in Yosys's library are empty or too much for Verilator.
//
// The PLL is a wire: simulations run at one clock, whatever its frequency. It locks after a while.

module SB_PLL40_PAD #(
    parameter FEEDBACK_PATH = "SIMPLE",
    parameter DIVR = 0,
    parameter DIVF = 0,
    parameter DIVQ = 0,
    parameter FILTER_RANGE = 0
) (
    input PACKAGEPIN,
    input RESETB,
    input BYPASS,
    output PLLOUTCORE,
    output LOCK
);
  reg [3:0] count = 0;
  always @(posedge PACKAGEPIN) if (!LOCK) count <= count + 1;
  assign LOCK = count == 15;
  assign PLLOUTCORE = PACKAGEPIN;
endmodule

module SB_PLL40_CORE #(
    parameter FEEDBACK_PATH = "SIMPLE",
    parameter DIVR = 0,
    parameter DIVF = 0,
    parameter DIVQ = 0,
    parameter FILTER_RANGE = 0
) (
    input REFERENCECLK,
    input RESETB,
    input BYPASS,
    output PLLOUTCORE,
    output LOCK
);
  SB_PLL40_PAD pll (
      .PACKAGEPIN(REFERENCECLK),
      .RESETB(RESETB),
      .BYPASS(BYPASS),
      .PLLOUTCORE(PLLOUTCORE),
      .LOCK(LOCK)
  );
endmodule

// A pin without registers, with one for each direction, or, for an output, with one for each half
// of the clock. The upper bits of PIN_TYPE are 0 if it has no output.
module SB_IO #(
    parameter PIN_TYPE = 0,
    parameter PULLUP = 0,
    parameter IO_STANDARD = "SB_LVCMOS"
) (
    inout  PACKAGE_PIN,
    input  CLOCK_ENABLE,
    input  INPUT_CLK,
    input  OUTPUT_CLK,
    input  OUTPUT_ENABLE,
    input  D_OUT_0,
    input  D_OUT_1,
    output D_IN_0
);
  generate
    if (PIN_TYPE[5:4] == 3) begin
      reg out = 0, enable = 0, in = 0;
      always @(posedge OUTPUT_CLK) begin
        out <= D_OUT_0;
        enable <= OUTPUT_ENABLE;
      end
      always @(posedge INPUT_CLK) in <= PACKAGE_PIN;
      assign D_IN_0 = in;
      // D_OUT_1 is a register's of this clock, so it stands while the clock is low.
      if (PIN_TYPE[3:2] == 0) assign PACKAGE_PIN = OUTPUT_CLK ? out : D_OUT_1;
      else assign PACKAGE_PIN = enable ? out : 1'bz;
    end else if (PIN_TYPE[5:4] == 0) assign D_IN_0 = PACKAGE_PIN;
    else assign PACKAGE_PIN = D_OUT_0;
  endgenerate
endmodule
