// The iCEBreaker's top with its flash; the serial port and the LEDs are cocotb's.

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

  wire select_n, clock, copi, cipo, wp, hold, green_n, red_n;
  wire clk_pin, rx_pin;  // the top's pins are inout
  assign clk_pin = clk;
  assign rx_pin = rx;
  assign led_ready = !green_n;
  assign led_error = !red_n;

  spi_flash #(
      .OFFSET(FLASH_OFFSET),
      .BYTES (FLASH_BYTES)
  ) flash (
      .select_n(select_n),
      .clock(clock),
      .copi(copi),
      .cipo(cipo)
  );
  top dut (
      .clk12_0__io(clk_pin),
      .uart_0__rx__io(rx_pin),
      .uart_0__tx__io(tx),
      .spi_flash_1x_0__cs__io(select_n),
      .spi_flash_1x_0__clk__io(clock),
      .spi_flash_1x_0__copi__io(copi),
      .spi_flash_1x_0__cipo__io(cipo),
      .spi_flash_1x_0__wp__io(wp),
      .spi_flash_1x_0__hold__io(hold),
      .led_g_0__io(green_n),
      .led_r_0__io(red_n),
      .led_g_3__io(led_busy)
  );
endmodule
