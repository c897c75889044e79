import json

import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as ULX3S
from bnnhw.errors import UserError
from bnnhw.flow import implement, tools
from bnnhw.flow.families import FAMILIES

STAT = """
=== top ===

     5379 wires
       12   SB_CARRY
        7 1.5E+03 SB_DFFE
        3   SB_DFF
       27   SB_RAM40_4K
"""


ECP5_STAT = """
     6128 cells
      100   $scopeinfo
      653   CCU2C
        1   DCCA
       91   DP16KD
        1   EHXPLLL
     2949   LUT4
        8   MULT18X18D
     2312   TRELLIS_FF
       12   TRELLIS_IO
"""
LOG = """\
Info: Device utilisation:
Info: \t         ICESTORM_LC:    4531/   5280    85%
Info: \t        ICESTORM_RAM:      27/     30    90%
Info: \t      ICESTORM_SPRAM:       4/      4   100%
"""
ECP5_LOG = """\
Info: Device utilisation:
Info: \t          TRELLIS_IO:      12/    365     3%
Info: \t              DP16KD:      91/    208    43%
Info: \t          MULT18X18D:       8/    156     5%
Info: \t          TRELLIS_FF:    2312/  83640     2%
Info: \t        TRELLIS_COMB:    4807/  83640     5%
Info: \t        TRELLIS_RAMW:       0/  10455     0%
"""


def test_cell_counts():
    expected = {"SB_CARRY": 12, "SB_DFFE": 7, "SB_DFF": 3, "SB_RAM40_4K": 27}
    assert implement.cell_counts(STAT) == expected


@pytest.mark.parametrize(
    ("board", "stat", "expected"),
    [
        (BOARD, STAT, dict(lut=0, ff=10, ebr=27, spram=0, dsp=0)),
        (ULX3S, ECP5_STAT, dict(lut=2949 + 2 * 653, ff=2312, ebr=91, dsp=8)),
    ],
)
def test_synthesis_counts_what_the_family_has(monkeypatch, tmp_path, board, stat, expected):
    def run(tool, arguments, *, cwd, log):
        assert tool is tools.YOSYS and f"{arguments[-1]}" == "top.ys"
        (cwd / "top.stat").write_text(stat)
        (cwd / "top.json").write_text("{\n}\n")
        (cwd / "netlist.v").write_text(netlist)

    monkeypatch.setattr(tools, "run", run)
    netlist = "module top;\nendmod"
    with pytest.raises(tools.ToolError, match="netlist.v: Yosys has not written it to its end"):
        implement.synthesise(board, tmp_path)
    netlist = "module top;\nendmodule\n"
    assert implement.synthesise(board, tmp_path) == expected
    script = (tmp_path / "top.ys").read_text()
    assert f"synth_{board.family} {' '.join(board.synth_opts)} -top top" in script


def test_a_bit_that_synthesis_has_lost_is_no_result(tmp_path):
    design = "module \\top\n  wire output 1 \\o\n  wire \\lost\n  connect \\o \\lost\nend\n"
    (tmp_path / "top.il").write_text(design)
    with pytest.raises(tools.ToolError, match="Found 1 problems"):
        implement.synthesise(BOARD, tmp_path)


def test_packed_reads_the_table_of_a_log():
    assert implement.packed(BOARD, LOG) == dict(lc=4531, ebr=27, spram=4)
    expected = dict(lut=4807, ff=2312, ebr=91, dsp=8)
    assert implement.packed(ULX3S, ECP5_LOG) == expected
    assert {*expected} == {*ULX3S.budget}


LINE = "Info:      {0}000 |    56970      28092 | 1000     0 |      {1}|       0.40     243.84|"


@pytest.mark.parametrize(
    ("remaining", "stuck"),
    [([1958] * 12, True), ([7, *[1958] * 12], True), ([1958] * 11, False), (range(20), False)],
)
def test_livelock(remaining, stuck):
    lines = [LINE.format(index, number) for index, number in enumerate(remaining)]
    reason = implement.livelock("cut 34 |\n" + "\n".join(lines))
    assert (reason == "its router is in a livelock with 1958 arcs left") == stuck


ROUND = "Info:     iter={} wires={} overused={} overuse=2 archfail=NA"


@pytest.mark.parametrize(
    ("wires", "overused", "reason"),
    [
        ([9] * 300, [2] * 300, "its router is in a livelock with wires=9 overused=2 in all rounds"),
        ([9] * 299, [2] * 299, None),
        ([9] * 300, [*[2] * 299, 1], None),
        (range(300), [2] * 300, None),
        ([9] * 300, [0] * 300, None),
        (range(42), [3, 0, *[7] * 40], "its router has not mended the last arcs in 40 rounds"),
        (range(41), [3, 0, *[7] * 39], None),
        (range(42), [3, 0, *[7] * 39, 0], None),
        (
            range(300),
            [1, *[2] * 299],
            "its router has been worse than 1 overused wires for 300 rounds",
        ),
        (range(300), [1, *[2] * 298, 1], None),
    ],
)
def test_livelock_of_the_other_router(wires, overused, reason):
    rounds = [ROUND.format(n, *pair) for n, pair in enumerate(zip(wires, overused, strict=True))]
    log = "\n".join(["Info: Routing..", *rounds])
    assert implement.livelock(log) == reason
    assert len("\n".join(rounds)) < tools.TAIL_BYTES


def fake_nextpnr(results):
    """tools.run that gives each call the next result: an fmax, or an error to raise."""
    calls = []

    def run(tool, arguments, *, cwd, log, timeout, hopeless):
        result = results[len(calls)]
        calls.append(arguments)
        assert timeout == FAMILIES[BOARD.family].pnr_seconds and hopeless is implement.livelock
        if isinstance(result, Exception):
            raise result
        used = {f"ICESTORM_{name}": {"used": 5} for name in ("LC", "RAM", "SPRAM", "DSP")}
        fmax = {"clk": {"achieved": result}, "raw": {"achieved": 200.0}}
        (cwd / f"pnr-{arguments[arguments.index('--seed') + 1]}.json").write_text(
            json.dumps({"fmax": fmax, "utilization": used})
        )
        return 1.0

    return run, calls


def place(monkeypatch, tmp_path, results):
    run, calls = fake_nextpnr(results)
    monkeypatch.setattr(tools, "run", run)
    return implement.place_and_route(BOARD, tmp_path, seed=3, clock_hz=24e6), calls


def test_first_seed_that_meets_the_clock_wins(monkeypatch, tmp_path):
    stopped = tools.ToolStopped("nextpnr: stopped after 300 s")
    placed, calls = place(monkeypatch, tmp_path, [stopped, 23.9, 24.1])
    assert (placed.seed, placed.fmax_mhz, placed.met) == (5, 24.1, True)
    assert placed.tried == ("seed 3: nextpnr: stopped after 300 s", "seed 4: 23.9 MHz")
    assert len(calls) == 3 and calls[0][calls[0].index("--freq") + 1] == "24"
    assert placed.utilisation == {"lc": 5, "ebr": 5, "spram": 5, "dsp": 5}


def test_no_seed_meets_the_clock(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"timing: 24 MHz not met .*give --clock 21 or"):
        place(monkeypatch, tmp_path, [20.0, 21.7, 21.0, 20.1])


def test_no_seed_routes(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no seed succeeded"):
        place(monkeypatch, tmp_path, [tools.ToolStopped("stopped")] * 4)


def test_an_ecp5_is_placed_and_packed(monkeypatch, tmp_path):
    calls = []

    def run(tool, arguments, *, cwd, log, **limits):
        calls.append((tool, arguments))
        used = {"TRELLIS_COMB": 4807, "TRELLIS_FF": 2312, "DP16KD": 91, "MULT18X18D": 8}
        content = dict(
            fmax={"clock.clk": {"achieved": 58.435}, "clock.raw_clk": {"achieved": 954.2}},
            utilization={name: {"used": number} for name, number in used.items()},
        )
        (cwd / "pnr-1.json").write_text(json.dumps(content))

    monkeypatch.setattr(tools, "run", run)
    placed = implement.place(ULX3S, tmp_path, 1, 48e6)
    assert (placed.fmax_mhz, placed.met) == (58.44, True)
    assert placed.utilisation == dict(lut=4807, ff=2312, ebr=91, dsp=8)
    assert implement.pack(ULX3S, tmp_path, 1) == tmp_path / "top.bit"
    (nextpnr, placing), (packer, packing) = calls
    assert (nextpnr, packer) == (tools.NEXTPNR_ECP5, tools.ECPPACK)
    for option, value in (("--lpf", "top.lpf"), ("--textcfg", "top-1.textcfg")):
        assert placing[placing.index(option) + 1] == value
    assert packing[-2:] == ["top-1.textcfg", "top.bit"]
