// A SPI flash: answers 0x03 in mode 0. Content: file FILE from OFFSET on; elsewhere it is erased.

module spi_flash #(
    parameter FILE = "flash.bin",
    parameter OFFSET = 0,
    parameter BYTES = 1
) (
    input select_n,
    input clock,
    input copi,
    output reg cipo
);
  reg [7:0] content[0:BYTES-1];
  reg [5:0] shifted = 0;
  reg [31:0] command = 0;
  reg [26:0] position = 0;
  integer file, count;
  initial begin
    file  = $fopen(FILE, "rb");
    count = $fread(content, file);
    if (count != BYTES) $fatal(1, "%s: has %0d bytes, not %0d", FILE, count, BYTES);
  end

  wire [23:0] at = position[26:3] - OFFSET;
  wire [7:0] value = position[26:3] >= OFFSET && at < BYTES ? content[at] : 8'hff;

  always @(posedge clock, posedge select_n) begin
    if (select_n) shifted <= 0;
    else if (shifted < 32) begin
      command <= {command[30:0], copi};
      shifted <= shifted + 1;
      position <= {command[22:0], copi, 3'b0};
    end else position <= position + 1;
  end
  always @(negedge clock)
    cipo <= shifted == 32 && command[31:24] == 8'h03 ? value[7-position[2:0]] : 1'b1;
endmodule
