// Primitives of the ECP5 that a top of the ULX3S instantiates.
//
// The PLL is a wire: simulations run at one clock, whatever its frequency. It locks after a while.

module EHXPLLL #(
    parameter FEEDBK_PATH = "CLKOP",
    parameter CLKI_DIV = 1,
    parameter CLKFB_DIV = 1,
    parameter CLKOP_ENABLE = "ENABLED",
    parameter CLKOP_DIV = 1,
    parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0,
    parameter CLKOS_ENABLE = "ENABLED",
    parameter CLKOS_DIV = 1,
    parameter CLKOS_CPHASE = 0,
    parameter CLKOS_FPHASE = 0
) (
    input  CLKI,
    input  CLKFB,
    input  RST,
    input  STDBY,
    input  PHASESEL0,
    input  PHASESEL1,
    input  PHASEDIR,
    input  PHASESTEP,
    input  PHASELOADREG,
    input  PLLWAKESYNC,
    input  ENCLKOP,
    input  ENCLKOS,
    output CLKOP,
    output CLKOS,
    output LOCK
);
  reg [3:0] count = 0;
  always @(posedge CLKI) if (!LOCK) count <= count + 1;
  assign LOCK  = count == 15;
  assign CLKOP = CLKI;
  assign CLKOS = CLKI;
endmodule

// The enable is taken while the clock is low, so that every pulse is whole.
module DCCA (
    input  CLKI,
    input  CE,
    output CLKO
);
  reg enable = 0;
  always @(negedge CLKI) enable <= CE;
  assign CLKO = CLKI & enable;
endmodule

// The flash's clock is `mclk`. The first three pulses after the configuration are lost.
module USRMCLK (
    input USRMCLKI,
    input USRMCLKTS
);
  reg [1:0] lost = 0;
  always @(negedge USRMCLKI) if (lost != 3) lost <= lost + 1;
  wire mclk = USRMCLKI & ~USRMCLKTS & lost == 3;
endmodule

module IB (
    input  I,
    output O
);
  assign O = I;
endmodule

module OBZ (
    input  I,
    input  T,
    output O
);
  assign O = T ? 1'bz : I;
endmodule
