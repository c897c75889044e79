// A quad SPI flash as the W25Q128JV, mode 0: asleep until 0xAB; 0x50 and 0x31 set the quad enable
// bit of status register 2, without which 0xEB is not understood. What breaks the protocol stops
// the simulation. Content: file FILE from OFFSET on; elsewhere it is erased.
//
// +missing=1 : it drives nothing. +stuck= : a wire that it always drives as 1. +flip_read= : in the
// read of this number, from 1, bit +flip_bit= of the content is wrong.

module qspi_flash #(
    parameter FILE = "flash.bin",
    parameter OFFSET = 0,
    parameter BYTES = 1
) (
    input select_n,
    input clock,
    inout [3:0] dq
);
  reg [7:0] content[0:BYTES-1];
  reg awake = 0, writable = 0, quad = 0;
  reg [15:0] shifted = 0;  // clocks of this command, no more than 20
  reg [15:0] command = 0;
  reg [31:0] address = 0;  // and mode bits
  reg [24:0] nibble = 0;
  reg [3:0] out = 0;
  reg driving = 0;
  reg [31:0] reads = 0;
  integer file, count, missing, stuck, flip_read, flip_bit;
  initial begin
    if (!$value$plusargs("missing=%d", missing)) missing = 0;
    if (!$value$plusargs("stuck=%d", stuck)) stuck = 4;
    if (!$value$plusargs("flip_read=%d", flip_read)) flip_read = 0;
    if (!$value$plusargs("flip_bit=%d", flip_bit)) flip_bit = 0;
    file  = $fopen(FILE, "rb");
    count = $fread(content, file);
    if (count != BYTES) $fatal(1, "%s: has %0d bytes, not %0d", FILE, count, BYTES);
  end

  genvar wire_;
  generate
    for (wire_ = 0; wire_ < 4; wire_ = wire_ + 1)
      assign dq[wire_] = driving && missing == 0 ? out[wire_] || stuck == wire_ : 1'bz;
  endgenerate

  wire [23:0] at = nibble[24:1] - OFFSET;
  wire flipped = reads == flip_read && at == flip_bit / 8;
  wire [7:0] stored = nibble[24:1] >= OFFSET && at < BYTES ? content[at] : 8'hff;
  wire [7:0] value = flipped ? stored ^ (8'h01 << flip_bit % 8) : stored;
  wire reading = command[7:0] == 8'heb && shifted >= 8;

  always @(posedge clock, posedge select_n) begin
    if (select_n) begin
      shifted <= 0;
      if (shifted == 8 && command[7:0] == 8'hab) awake <= 1;
      else if (shifted == 8 && command[7:0] == 8'h50) writable <= awake;
      else if (shifted == 16 && command == 16'h3102) quad <= writable;
      else if (shifted != 0 && shifted != 20) $fatal(1, "command %h, %0d clocks", command, shifted);
    end else begin
      if (shifted < 20) shifted <= shifted + 1;
      if (!reading) command <= {command[14:0], dq[0]};
      else if (shifted < 16) address <= {address[27:0], dq};
      if (reading && shifted == 19) begin
        if (address[5:4] == 2) $fatal(1, "mode %h: continuous read", address[7:0]);
        if (!quad && missing == 0) $fatal(1, "a quad read without quad enable");
        nibble <= {address[31:8], 1'b0};
        reads  <= reads + 1;
      end else if (shifted == 20) nibble <= nibble + 1;
    end
  end
  always @(negedge clock, posedge select_n) begin
    driving <= !select_n && shifted == 20;
    out <= nibble[0] ? value[3:0] : value[7:4];
  end
endmodule
