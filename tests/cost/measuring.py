"""What tests of measurements share: tools that only pretend, the command, trained networks."""

from __future__ import annotations

import json
from dataclasses import replace

from click.testing import CliRunner

from bnnhw import measure
from bnnhw.cost import bench
from bnnhw.cost.activity import Activity
from bnnhw.cost.tables import entries
from bnnhw.flow import tools
from bnnhw.flow.implement import Placed
from bnnhw.flow.prove import Proof
from bnnhw.network.methods import isolated
from bnnhw.network.repair import BASELINE, CATEGORIES, TOPOLOGY
from bnnhw.network.spec import NetworkSpec

DIGITS = NetworkSpec(depth=8, input=(8, 8, 1), repair=BASELINE)
TOPOLOGIES = {category.name for category in CATEGORIES if category.cost == TOPOLOGY}
CLOCKS = {1: 30.0, 2: 25.0, 3: 26.0}


class Tools:
    """Stands for the tools: 4,000 LUTs, 64 more and a cycle more with a border of its own.

    calls : what was run, in order. counted : whose activity. mismatch, luts, fault : what the next
    runs find.
    """

    def __init__(self):
        self.calls, self.counted = [], []
        self.mismatch, self.luts, self.fault = None, 4000, None

    def write_files(self, plan, board, clock, folder, *, name, step, bound):
        assert not bound
        self.calls.append("design")
        (folder / "top.il").write_text(repr(plan.parameters))
        (folder / f"top.{board.constraints}").write_text("")
        (folder / "flash.bin").write_bytes(plan.image.tobytes())
        return folder / "engine.v"

    def prove(self, plan, network, verilog, images, folder, *, byte_cycles, progress):
        assert images.shape[1:] == network.spec.input
        self.calls.append("prove")
        more = plan.parameters.minus_one
        return Proof(len(images), 37, self.mismatch, 900, 12000 + more, {0: 12000}, "verilator 5")

    def synthesise(self, board, folder):
        self.calls.append("synth")
        if self.fault:
            raise tools.ToolError(self.fault)
        for product in ("top.json", "netlist.v"):
            (folder / product).write_text("made")
        more = "minus_one=True" in (folder / "top.il").read_text()
        return dict(lut=self.luts + 64 * more, ff=2000, ebr=27, spram=4, dsp=8)

    def count_activity(self, network, board, images, divisor, folder):
        assert images.shape[1:] == network.spec.input
        self.counted.append(images)
        more = "minus_one=True" in (folder / "top.il").read_text()
        return Activity(
            cycles=20_000, loads=5e6 + 1e6 * more, multiplier_inputs=1e5, flip_flops=2000,
            ebr=500_000, spram=80_000, spram_writes=9000,
        )  # fmt: skip

    def place(self, board, folder, seed, clock_hz, seconds):
        self.calls.append(f"place {seed}")
        if seed not in CLOCKS:
            (folder / f"nextpnr-{seed}.log").write_text("Info: ICESTORM_LC:  4500/ 5280  85%")
            raise tools.ToolStopped("nextpnr-ice40: stopped after 300 s, its time limit")
        lc = 64 * ("minus_one=True" in (folder / "top.il").read_text()) + 4500
        used = dict(lc=lc, ebr=27, spram=4, dsp=8)
        return Placed(seed, CLOCKS[seed], clock_hz / 1e6, used, ())


def run(out, methods, *words):
    arguments = ["--board", "icebreaker", "--network", "resnet8-digits", "--methods", methods,
                 "--out", out, *words]  # fmt: skip
    return CliRunner().invoke(measure.main, [str(word) for word in arguments])


def content(out):
    return json.loads((out / "repair-cost.json").read_text())


def by_method(out):
    return {entry["method"]: entry for entry in content(out)["methods"]}


def case(out, seeds=1, **changes):
    return bench.Case("mine", {}, replace(DIGITS, **changes), "icebreaker", seeds, 1, out)


def trained(folder, spec, integer, seed=0, **changes):
    run = dict(spec=spec.to_dict(), integer=integer, seed=seed, dataset="digits", epochs=10,
               train_images=1257, split="validation", validation_images=180)  # fmt: skip
    folder.mkdir(exist_ok=True)
    number = len([*folder.iterdir()])
    (folder / f"run{number}.json").write_text(json.dumps(run | changes))


def figures(method, lc, accuracy=None, **settings):
    row = dict(method=method, settings=settings, status="built", fps=1.0, memory_words=9,
               measured="2026-01-31",
               cells=dict(lc=lc, lut=lc - 9, ff=5, ebr=27, spram=4, dsp=8),
               cycles=dict(busy=10 * lc, latency=7), fmax_mhz=dict(median=24.0, min=24.0, max=24.0),
               traffic=dict(reads=dict(image=3, weights=4), writes=dict(image=2)))  # fmt: skip
    known = dict(mean=accuracy, min=accuracy, max=accuracy, runs=1)
    return row, {} if accuracy is None else {method: known}


def every_method():
    """Contents of a page with a row for each method: some trained, one that was not built.

    The figures are made up: cells grow with topology methods, accuracies along the list.
    """
    rows, known = [], {}
    for at, method in enumerate(isolated()):
        topology = method.category in TOPOLOGIES
        accuracy = 70 + (37 * at % 97) / 10 if at % 3 != 1 else None
        row, found = figures(method.name, 3600 + 61 * at * topology, accuracy, **method.settings)
        row["cycles"]["busy"] = 10256 + (at * at % 7) * 911 * topology
        energy = dict(logic=0.6, memory=round(0.1 * (at % 5) * topology, 3))
        row["energy"] = dict(total=sum(energy.values()), microjoules=energy, images="1 image")
        row["fmax_mhz"] = dict(median=27.5 - at / 20, min=26.0 - at / 20, max=28.0)
        rows.append(row)
        known |= found
    last = {name: rows[-1][name] for name in ("method", "settings")}
    reason = "the engine has no such part yet; " * 5
    rows[-1] = last | dict(status="refused", measured="2026-02-01", reason=reason)
    known.pop(last["method"], None)
    return dict(
        network="resnet8-digits", board="icebreaker", device="iCE40UP5K-SG48", seeds=3, images=1,
        clock_mhz=24.0, protocol="180 test images of digits", tools=tools.versions(),
        command="python -m bnnhw.measure --board icebreaker --network resnet8-digits",
        methods=entries(rows, known),
    )  # fmt: skip
