import random

import pytest
from amaranth.back import rtlil

from bnnhw.boards.numbers import baud_divisor
from bnnhw.boards.ulx3s import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.flow import implement
from bnnhw.flow.stages import write_design
from bnnhw.lowering.lower import lower
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.untrained import untrained
from tests.flow.fakes import FakeEngine
from tests.gateware.bench import simulate


@pytest.mark.parametrize("mhz", [16, 25, 33.3, 48, 50, 60, 72, 96, 100])
def test_pll_is_close_and_never_above(mhz):
    settings = BOARD.pll(mhz * 1e6)
    oscillator = 25e6 / settings.reference * settings.feedback
    assert settings.output_hz == pytest.approx(oscillator / settings.divide)
    assert 0.98 * mhz * 1e6 <= settings.output_hz <= mhz * 1e6
    assert 400e6 <= oscillator <= 800e6 and 25e6 / settings.reference >= 10e6
    assert 3.125e6 <= oscillator / settings.feedback <= 400e6  # what is fed back is an output too
    for divider in (settings.reference, settings.feedback, settings.divide):
        assert divider in range(1, 129)


@pytest.mark.parametrize("mhz", [1, 15.9, 101, 400])
def test_pll_out_of_range(mhz):
    with pytest.raises(ValueError, match="16 to 100 MHz"):
        BOARD.pll(mhz * 1e6)


def test_serial_port_at_its_fastest():
    assert baud_divisor(BOARD.pll(BOARD.clock_hz).output_hz, BOARD.max_baud) == (3_000_000, 16)


def test_memory_writes_masked_nibbles_and_reads_a_cycle_later():
    """Against a list of words, at both ends and between, reading and writing in any order."""
    dut, rng = BOARD.memory(), random.Random(1)
    port = dut.port
    words: dict[int, int] = {}
    last = BOARD.memory_words - 1
    addresses = [0, 1, last // 2, last // 2 + 1, last - 1, last]
    masks = [0, 1, 0x8000, 0xFFFF, *(rng.getrandbits(16) for _ in range(20))]

    async def bench(ctx):
        for _ in range(300):
            address, write = rng.choice(addresses), rng.randrange(2)
            data, mask = rng.getrandbits(64), rng.choice(masks)
            ctx.set(port.address, address)
            ctx.set(port.write, write)
            ctx.set(port.write_data, data)
            ctx.set(port.write_mask, mask)
            await ctx.tick()
            if write:
                bits = sum(0xF << 4 * nibble for nibble in range(16) if mask >> nibble & 1)
                words[address] = words.get(address, 0) & ~bits | data & bits
            else:
                assert ctx.get(port.read_data) == words.get(address, 0)

    simulate(dut, bench)


def test_memory_is_its_block_rams_and_nothing_else(tmp_path):
    memory = BOARD.memory()
    ports = {"__".join(path): (value, None) for path, _, value in
             memory.port.signature.flatten(memory.port)}  # fmt: skip
    (tmp_path / "top.il").write_text(rtlil.convert(memory, name="top", ports=ports))
    cells = implement.synthesise(BOARD, tmp_path)
    assert cells["ebr"] == BOARD.memory_ebr
    assert cells["ff"] == 1  # which half was read
    assert cells["lut"] <= 64 + 2 * 16  # a bit of either half; a half's write enable of each nibble


def test_an_engine_of_weights_for_several_terms_is_synthesised(tmp_path):
    """Yosys gave single bits the names of whole wires in this one, and stopped."""
    repair = Repair(double_residual=False, ensemble="weights-2")
    spec = NetworkSpec(depth=20, widths=(16, 32, 64), repair=repair)
    plan = make_plan(lower(untrained(spec)), BOARD, pe=1)
    write_design(plan, BOARD, tmp_path)
    cells = implement.synthesise(BOARD, tmp_path)
    assert all(cells[name] <= total for name, total in BOARD.budget.items())
    assert cells["ebr"] >= BOARD.memory_ebr and cells["dsp"] == 8


def test_top_elaborates_with_its_primitives_and_pins():
    engine = FakeEngine(frame_bytes=64, classes=10)
    top = BOARD.top(engine, frame_bytes=64, n_results=12, boot_length=1024, clock_hz=48_000_000)
    files = BOARD.prepare(top)
    assert sorted(files) == ["top.il", "top.lpf"]
    for primitive in ("EHXPLLL", "DCCA", "USRMCLK"):
        assert files["top.il"].count(f"cell \\{primitive} ") == 1
    pins = dict(clk25_0__io="G2", uart_0__rx__io="M1", uart_0__tx__io="L4", led_0__io="B2")
    for port, pin in pins.items():
        assert f'LOCATE COMP "{port}" SITE "{pin}";' in files["top.lpf"]
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in files["top.lpf"]
