// An engine with a behavioural memory, fed from files and watched by cocotb.
//
// boot.hex    +boot_words= words of the boot image; put in the memory before the clock, or, with
//             +load_stream, sent by the load stream
// pixels.bin  `frames` frames of FRAME_BYTES bytes, one each `byte_cycles` cycles or slower; a
//             frame is sent once the last is answered
// words.hex   with WORD_STREAM: the +words= words of a stream, each after a digit that is 1 if it
//             is short; a nibble a cycle, what nobody needs of a short word is noise
// +memory_words= is the size of the memory, past which the address wraps.
// snapshot_<frame>_<step>.hex is the memory after each program step, written if `snapshots` is 1.
//
// With +stall, pixels and results are held back at random. Words that nothing wrote, and the data
// after a write, are noise: a design that uses them fails.

module engine_bench #(
    parameter FRAME_BYTES = 3072,
    parameter RESULTS = 12,
    parameter STREAM_WIDTH = 64
) (
    input clk /* verilator public_flat_rw */,
    input [31:0] frames /* verilator public_flat_rw */,
    input [31:0] byte_cycles /* verilator public_flat_rw */,
    input snapshots /* verilator public_flat_rw */
);
  reg [63:0] memory[0:32767];
  reg [63:0] boot[0:32767];

  wire [14:0] address;
  wire [63:0] write_data;
  wire [15:0] write_mask;
  wire write;
  reg [63:0] read_data;

  reg [31:0] now = 0;
  reg [31:0] frame /* verilator public_flat_rw */ = 0;
  reg [31:0] sent /* verilator public_flat_rw */ = 0;
  reg [31:0] answered = 0;
  reg [31:0] first_pixel /* verilator public_flat_rw */ = 0;
  reg [31:0] last_pixel /* verilator public_flat_rw */ = 0;
  reg [31:0] loaded = 0;
  reg [63:0] noise = 64'h9e3779b97f4a7c15;
  reg run = 0;
  reg pixel_held = 0;
  reg [7:0] pixel = 0;
  reg [31:0] pause = 0;

  // Events that cocotb waits for: each counts up after its values are stable.
  reg [31:0] steps /* verilator public_flat_rw */ = 0;
  reg [7:0] last_step /* verilator public_flat_rw */ = 0;
  reg [31:0] step_at /* verilator public_flat_rw */ = 0;
  reg [31:0] begun = 0;  // frames whose first step is done
  reg [31:0] step_frame /* verilator public_flat_rw */ = 0;
  reg [31:0] results_seen /* verilator public_flat_rw */ = 0;
  reg signed [31:0] last_result /* verilator public_flat_rw */ = 0;
  reg [31:0] result_at /* verilator public_flat_rw */ = 0;

  integer file, word, boot_words, memory_words;
  reg load_stream, stall;
  initial begin
    load_stream = $test$plusargs("load_stream") != 0;
    stall = $test$plusargs("stall") != 0;
    if (!$value$plusargs("boot_words=%d", boot_words)) $fatal(1, "+boot_words: not given");
    if (!$value$plusargs("memory_words=%d", memory_words)) $fatal(1, "+memory_words: not given");
    if (boot_words > 0) $readmemh("boot.hex", boot, 0, boot_words - 1);
    for (word = 0; word < memory_words; word = word + 1) begin
      memory[word] = 64'hbad0_5eed_0000_0000 ^ (64'd2654435761 * word);
      if (!load_stream && word < boot_words) memory[word] = boot[word];
    end
    file = $fopen("pixels.bin", "rb");
    if (file == 0) $fatal(1, "pixels.bin: not found");
  end

  wire load_ready, pixel_ready, result_valid, step_done, busy;
  wire [1:0] result;  // bit 0 is the next of a word, bit 1 is set with the frame's last
  reg [31:0] gathered = 0;
  reg [4:0] bits = 0;
  wire [31:0] of_frame = step == 0 ? begun : begun - 1;
  wire [7:0] step;
  wire load_valid = load_stream && loaded < 8 * boot_words;
  wire pixel_valid = pixel_held && pause == 0 && (!stall || noise[0] && noise[3]);
  wire result_ready = !stall || noise[5];

  engine dut (
      .clk(clk),
      .rst(1'b0),
      .memory__address(address),
      .memory__write_data(write_data),
      .memory__write_mask(write_mask),
      .memory__write(write),
      .memory__read_data(read_data),
`ifdef OWN_STREAM
      .stream__address(stream_address),
      .stream__write_data(stream_write_data),
      .stream__write_mask(stream_write_mask),
      .stream__write(stream_write),
      .stream__read_data(stream_read_data),
`endif
`ifdef WORD_STREAM
      .words__restart(words_restart),
      .words__request(words_request),
      .words__grant(words_grant),
      .words__short(words_short),
      .words__valid(words_valid),
      .words__data(words_data),
      .words__checked(words_checked),
`endif
      .load__payload(boot[loaded[31:3]][8*loaded[2:0]+:8]),
      .load__valid(load_valid),
      .load__ready(load_ready),
      .run(run),
      .pixels__payload(pixel),
      .pixels__valid(pixel_valid),
      .pixels__ready(pixel_ready),
      .results__payload(result),
      .results__valid(result_valid),
      .results__ready(result_ready),
      .ready(),
      .busy(busy),
      .step_done(step_done),
      .step(step)
  );

`ifdef OWN_STREAM
  reg [STREAM_WIDTH-1:0] stream[0:32767];
  wire [14:0] stream_address;
  wire [STREAM_WIDTH-1:0] stream_write_data;
  wire [STREAM_WIDTH/4-1:0] stream_write_mask;
  wire stream_write;
  reg [STREAM_WIDTH-1:0] stream_read_data;
  integer stream_words;
  initial begin
    if (!$value$plusargs("stream_words=%d", stream_words)) $fatal(1, "+stream_words: not given");
    for (word = 0; word < stream_words; word = word + 1)
      stream[word] = {STREAM_WIDTH / 32{32'hbad0_5eed ^ (32'd2654435761 * word)}};
  end
  wire [14:0] stream_at = stream_address % stream_words;
  integer part;
  always @(posedge clk) begin
    stream_read_data <= stream_write ? {STREAM_WIDTH / 64{noise}} : stream[stream_at];
    if (stream_write)
      for (part = 0; part < STREAM_WIDTH / 4; part = part + 1)
        if (stream_write_mask[part])
          stream[stream_at][4*part+:4] <= stream_write_data[4*part+:4];
  end
  always @(posedge clk)
    if (step_done && snapshots)
      $writememh($sformatf("stream_%0d_%0d.hex", of_frame, step), stream, 0, stream_words - 1);
`endif

`ifdef WORD_STREAM
  reg [64:0] words[0:(1<<20)-1];
  integer words_all, words_given = 0;  // a word that is granted counts
  reg [4:0] words_left = 0;  // nibbles of the word on its way
  reg [2:0] words_on_way = 0;
  reg words_valid = 0;
  reg [63:0] words_data;
  wire words_restart, words_request, words_short;
  wire words_checked = words_given == words_all && words_left == 0 && words_on_way == 0;
  wire words_grant = words_left == 0 && words_given < words_all && run;
  wire [64:0] word_due = words[words_given-1];
  initial begin
    if (!$value$plusargs("words=%d", words_all)) $fatal(1, "+words: not given");
    $readmemh("words.hex", words, 0, words_all - 1);
  end
  reg [64:0] words_line[0:2];
  always @(posedge clk) begin
    words_on_way  <= {words_on_way[1:0], words_left == 1};
    words_line[0] <= word_due;
    words_line[1] <= words_line[0];
    words_valid   <= words_on_way[1];
    words_data    <= words_line[1][64] ? {noise[15:0], words_line[1][47:0]} : words_line[1][63:0];
    if (words_request && words_grant) begin
      words_given <= words_given + 1;
      words_left  <= 15;
    end else if (words_left != 0) begin
      words_left <= words_left == 5 && words_short ? 0 : words_left - 1;
      if (words_left == 5 && words_short) words_on_way[0] <= 1;
      if (words_left == 5 && words_short != word_due[64])
        $fatal(1, "word %0d: asked for as short: %0d", words_given - 1, words_short);
    end
    if (words_restart) begin
      if (!words_checked) $fatal(1, "a restart after %0d words", words_given);
      words_given <= 0;
    end
  end
`endif

  wire [14:0] at = address % memory_words;
  integer nibble;
  always @(posedge clk) begin
    now <= now + 1;
    noise <= {noise[62:0], noise[63] ^ noise[62] ^ noise[60] ^ noise[59]};
    read_data <= write ? noise : memory[at];
    if (write)
      for (nibble = 0; nibble < 16; nibble = nibble + 1)
        if (write_mask[nibble]) memory[at][4*nibble+:4] <= write_data[4*nibble+:4];
  end

  always @(posedge clk) begin
    if (load_valid && load_ready) loaded <= loaded + 1;
    run <= !load_valid && now > 15;
    if (pixel_valid && pixel_ready) begin
      if (sent == 0) first_pixel <= now;
      last_pixel <= now;
      sent <= sent + 1;
      pause <= byte_cycles - 1;
    end else if (pause != 0) pause <= pause - 1;
    if (frame < frames && (pixel_held ? pixel_valid && pixel_ready && sent + 1 < FRAME_BYTES
                                      : sent == 0 && run)) begin
      pixel <= $fgetc(file);
      pixel_held <= 1;
    end else if (pixel_valid && pixel_ready) pixel_held <= 0;
    if (result_valid && result_ready) begin
      gathered <= {result[0], gathered[31:1]};
      bits <= bits + 1;
    end
    if (result_valid && result_ready && bits == 31) begin
      results_seen <= results_seen + 1;
      last_result <= {result[0], gathered[31:1]};
      result_at <= now;
      answered <= answered + 1;
      if (answered + 1 == RESULTS) begin
        answered <= 0;
        sent <= 0;
        frame <= frame + 1;
      end
    end
    if (step_done) begin
      if (snapshots)
        $writememh(
          $sformatf("snapshot_%0d_%0d.hex", of_frame, step), memory, 0, memory_words - 1
        );
      steps <= steps + 1;
      last_step <= step;
      step_at <= now;
      step_frame <= of_frame;
      if (step == 0) begun <= begun + 1;
    end
  end
endmodule
