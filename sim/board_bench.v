// A board's top with its flash; the serial port and the LEDs are cocotb's.
//
// sim/board_bench.py puts the top in place of the last comment.

module board_bench #(
    parameter FLASH_OFFSET = 0,
    parameter FLASH_BYTES = 1
) (
    input clk /* verilator public_flat_rw */,
    input rx /* verilator public_flat_rw */,
    output tx /* verilator public_flat_rw */,
    output led_ready /* verilator public_flat_rw */,
    output led_error /* verilator public_flat_rw */,
    output led_busy /* verilator public_flat_rw */
);
  reg counting /* verilator public_flat_rw */ = 0;  // sim/toggles.py counts in these cycles

  wire select_n, clock, copi, cipo, wp_n, hold_n, ready, error, busy;
  wire clk_pin, rx_pin;  // the top's pins are inout
  assign clk_pin = clk;
  assign rx_pin = rx;

`ifdef QUAD_FLASH
  wire [3:0] dq;
  qspi_flash #(
      .OFFSET(FLASH_OFFSET),
      .BYTES (FLASH_BYTES)
  ) flash (
      .select_n(select_n),
      .clock(clock),
      .dq(dq)
  );
`else
  spi_flash #(
      .OFFSET(FLASH_OFFSET),
      .BYTES (FLASH_BYTES)
  ) flash (
      .select_n(select_n),
      .clock(clock),
      .copi(copi),
      .cipo(cipo)
  );
`endif
  // top
endmodule
