// The ULX3S's top with its flash; the serial port and the LEDs are cocotb's.

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

  wire select_n, copi, cipo, wp, hold, boot;
  wire clk_pin, rx_pin;  // the top's pins are inout
  assign clk_pin = clk;
  assign rx_pin = rx;

  spi_flash #(
      .OFFSET(FLASH_OFFSET),
      .BYTES (FLASH_BYTES),
      .AWAKE (1)
  ) flash (
      .select_n(select_n),
      .clock(dut.mclk.mclk),
      .copi(copi),
      .cipo(cipo)
  );
  top dut (
      .clk25_0__io(clk_pin),
      .uart_0__rx__io(rx_pin),
      .uart_0__tx__io(tx),
      .spi_flash_0__cs__io(select_n),
      .spi_flash_0__copi__io(copi),
      .spi_flash_0__cipo__io(cipo),
      .spi_flash_0__wp__io(wp),
      .spi_flash_0__hold__io(hold),
      .esp32_boot_0__io(boot),
      .led_0__io(led_ready),
      .led_1__io(led_busy),
      .led_7__io(led_error)
  );
endmodule
