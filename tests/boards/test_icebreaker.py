import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.numbers import baud_divisor
from tests.flow.fakes import FakeEngine


def make_top(clock_hz=24_000_000):
    engine = FakeEngine(frame_bytes=64, classes=10)
    return BOARD.top(engine, frame_bytes=64, n_results=12, boot_length=1024, clock_hz=clock_hz)


@pytest.mark.parametrize("mhz", [16, 24, 30, 36, 48, 60])
def test_pll_is_close_and_never_above(mhz):
    settings = BOARD.pll(mhz * 1e6)
    made = 12e6 * (settings.divf + 1) / 2**settings.divq
    assert settings.output_hz == made
    assert mhz * 1e6 - 0.4e6 <= made <= mhz * 1e6
    assert 533e6 <= made * 2**settings.divq <= 1066e6


@pytest.mark.parametrize("mhz", [1, 15.9, 67, 200])
def test_pll_out_of_range(mhz):
    with pytest.raises(ValueError, match="16 to 66 MHz"):
        BOARD.pll(mhz * 1e6)


@pytest.mark.parametrize(
    ("mhz", "expected"), [(24, (3_000_000, 8)), (36, (3_000_000, 12)), (25.5, (1_500_000, 17))]
)
def test_baud_divisor(mhz, expected):
    assert baud_divisor(mhz * 1e6, 3_000_000) == expected


def test_baud_out_of_reach():
    with pytest.raises(ValueError, match="no serial rate"):
        baud_divisor(100_000, 3_000_000)


def test_top_elaborates_with_its_primitives_and_pins():
    files = BOARD.prepare(make_top())
    assert sorted(files) == ["top.il", "top.pcf"]
    assert files["top.il"].count("\\SB_SPRAM256KA") == 4
    assert files["top.il"].count("\\SB_PLL40_PAD") == 1
    assert ".py" not in files["top.il"]  # placement would depend on where bnnhw lies
    assert "set_io clk12_0__io 35" in files["top.pcf"]
