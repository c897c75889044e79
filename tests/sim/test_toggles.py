"""Changes of nets are counted exactly: a counter's bits, a gated window, more nets than a word."""

import pytest

from bnnhw.boards.ice40 import ICE40Board
from bnnhw.flow import tools
from bnnhw.sim.clock_bench import count
from bnnhw.sim.toggles import instrumented

COUNTER = """\
module top(input clk);
  reg [69:0] n = 0;
  wire carry;
  SB_LUT4 #(.LUT_INIT(16'h8000)) both (.O(carry), .I0(n[0]), .I1(n[1]), .I2(1'b1), .I3(1'b1));
  always @(posedge clk) n <= n + 1;
endmodule
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    return count(
        COUNTER, models=ICE40Board.models, share=tools.yosys_share(), cycles=1 + 96,
        changed=[*(f"n[{bit}]" for bit in range(70)), "carry"], high=["n[5]", "(n[0] & n[1])"],
        folder=tmp_path_factory.mktemp("counter"), environment=tools.environment(),
    )  # fmt: skip


def test_bits_of_a_counter(counts):
    assert counts.cycles == 97
    assert counts.changed[:8] == [96, 48, 24, 12, 6, 3, 1, 0]
    assert counts.changed[8:70] == [0] * 62
    assert counts.changed[70] == 48  # up from 2 to 3, down from 3 to 4


def test_cycles_in_which_an_expression_is_1(counts):
    assert counts.high == [33, 24]  # of 0 to 96


def test_the_block_is_in_the_module_and_the_rest_is_as_it_was():
    text = instrumented(
        "module top;\nendmodule\n// end\n", clock="c", counting="x", changed=["a b"]
    )
    assert text.startswith("module top;\n") and text.endswith("endmodule\n// end\n")
    assert "toggles_changed(0, {a b});" in text and "toggles_high(0" not in text
