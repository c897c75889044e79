import json

import pytest

from bnnhw import implement, tools
from bnnhw.errors import UserError
from boards.icebreaker import BOARD

STAT = """
=== top ===

     5379 wires
       12   SB_CARRY
        7 1.5E+03 SB_DFFE
        3   SB_DFF
       27   SB_RAM40_4K
"""


def test_cell_counts():
    expected = {"SB_CARRY": 12, "SB_DFFE": 7, "SB_DFF": 3, "SB_RAM40_4K": 27}
    assert implement.cell_counts(STAT) == expected


LINE = "Info:      {0}000 |    56970      28092 | 1000     0 |      {1}|       0.40     243.84|"


@pytest.mark.parametrize(
    ("remaining", "stuck"),
    [([1958] * 12, True), ([7, *[1958] * 12], True), ([1958] * 11, False), (range(20), False)],
)
def test_livelock(remaining, stuck):
    lines = [LINE.format(index, number) for index, number in enumerate(remaining)]
    reason = implement.livelock("cut 34 |\n" + "\n".join(lines))
    assert (reason == "its router is in a livelock with 1958 arcs left") == stuck


def fake_nextpnr(results):
    """tools.run that gives each call the next result: an fmax, or an error to raise."""
    calls = []

    def run(tool, arguments, *, cwd, log, timeout, hopeless):
        result = results[len(calls)]
        calls.append(arguments)
        assert timeout == implement.PNR_SECONDS and hopeless is implement.livelock
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


def test_packed_reads_the_table_of_a_log():
    log = (
        "Info: Device utilisation:\n"
        "Info: \t         ICESTORM_LC:    4531/   5280    85%\n"
        "Info: \t        ICESTORM_RAM:      27/     30    90%\n"
        "Info: \t      ICESTORM_SPRAM:       4/      4   100%\n"
    )
    assert implement.packed(log) == dict(lc=4531, ebr=27, spram=4)
