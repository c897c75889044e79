"""Engines in Verilog against the golden, every tensor, on random networks of random methods.

    python -m tests.sim.fuzz --count 500 --seed 7

The networks of a batch share an engine that has all that any of them needs, for an engine takes
far longer to compile than to run; only the boot image differs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click

from bnnhw import golden
from bnnhw.cli import Command
from bnnhw.compiler.plan import Plan
from bnnhw.flow import tools
from bnnhw.flow.prove import compare
from bnnhw.flow.verilog import to_verilog
from bnnhw.gateware.engine import Engine
from bnnhw.gateware.parameters import EngineParameters
from bnnhw.network.integer import IntegerNetwork
from bnnhw.sim.engine_bench import run_engine
from bnnhw.sim.runner import SimulationError
from tests.sim.combinations import BATCH, IMAGE_BASE, Case, batch_of, plan_of

NAMES = [part.name for part in fields(EngineParameters)]
MORE = [part.name for part in fields(EngineParameters) if part.type is bool]
MORE += [
    "most_groups",
    "most_words",
    "acc_width",
    "sum_width",
    "window_depth",
    "weight_depth",
    "shortcut_shift",
]
for name in ("passes", "activation", "shift_out", "resident"):  # they say how numbers lie in memory
    MORE.remove(name)


def _kind(parameters: EngineParameters) -> tuple[object, ...]:
    """What must be the same in networks that share an engine; of the rest it may have more."""
    return tuple(getattr(parameters, name) for name in NAMES if name not in MORE)


def _left(plan: Plan) -> set[str]:
    """The maps that the plan's steps leave in memory."""
    return {part[0] for step in plan.steps for part in (step.bits, step.residual) if part}


def _maps(network: IntegerNetwork) -> set[str]:
    """The maps that the golden has, but for the last bits, which nothing uses."""
    names = {name for name in golden.tap_names(network.spec) if name != "input.bits"}
    last = f"{network.convolutions[-1].shape.name}.bits"
    kinds = (".residual", ".bits", ".bits1", ".bits2")
    return {name for name in names if name.endswith(kinds) and not name.startswith(last)}


@dataclass(frozen=True)
class Machine:
    """An engine, simulated in the folder of its Verilog, and the plans of what it runs."""

    verilog: Path
    plans: dict[int, Plan]

    @classmethod
    def of(cls, cases: list[Case], folder: Path) -> Machine:
        """An engine that has all that any of the cases needs."""
        plans = {case.number: plan_of(case.network, case.pe) for case in cases}
        parts = [plan.parameters for plan in plans.values()]
        values = {name: {getattr(part, name) for part in parts} - {None} for name in MORE}
        more = {name: max(values[name], default=None) for name in MORE}
        folder.mkdir()
        engine = Engine(replace(parts[0], **more), image_base=IMAGE_BASE)
        return cls(to_verilog(engine, "engine", folder), plans)

    def difference(self, case: Case, reference: IntegerNetwork) -> str | None:
        """Run a case; where it is first not what the golden has of `reference`, if anywhere."""
        plan = self.plans[case.number]
        if missing := _maps(case.network) - _left(plan):
            return f"no step leaves {', '.join(sorted(missing))}"
        try:
            frames = run_engine(
                [self.verilog], boot=plan.image, images=case.images,
                classes=case.network.spec.classes, folder=self.verilog.parent / "sim",
                environment=tools.environment(), byte_cycles=case.byte_cycles, stall=case.stall,
                memory_words=plan.memory_words, stream_words=plan.stream_words,
                stream_width=plan.parameters.word_width,
            )  # fmt: skip
        except SimulationError as fault:
            return str(fault)
        taps = golden.run(reference, case.images, taps="all")
        for row, frame in enumerate(frames):
            if [step for step, _ in frame.step_ends] != list(range(len(plan.steps))):
                return f"image {row}: its steps end as {frame.step_ends}"
            _, mismatch = compare(plan, frame, row, taps, row)
            if mismatch:
                return str(mismatch)
        return None


def machines(cases: list[Case], folder: Path) -> list[tuple[Machine, list[Case]]]:
    """Engines, mostly one, in a new folder, each with those of the cases that it runs."""
    kinds: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        kinds.setdefault(_kind(plan_of(case.network, case.pe).parameters), []).append(case)
    folder.mkdir()
    groups = enumerate(kinds.values())
    return [(Machine.of(group, folder / f"engine{at}"), group) for at, group in groups]


def failure(machine: Machine, case: Case) -> str | None:
    """What is wrong with a case, in which network, and how to repeat it; None if nothing is."""
    if difference := machine.difference(case, case.network):
        again = f"python -m tests.sim.fuzz --seed {case.seed} --only {case.number}"
        return f"{difference}\n  {case.network.spec}\n  {again}"
    return None


def _run(cases: list[Case], folder: Path, only: int | None) -> int:
    """Print what fails of the cases, or of the only one; how many did."""
    start, run, failed = time.monotonic(), 0, 0
    for machine, group in machines(cases, folder):
        for case in group:
            if only in (None, case.number):
                found = failure(machine, case)
                run, failed = run + 1, failed + (found is not None)
                print(found or "", end="\n" if found else "", flush=True)
    first, last = cases[0].number, cases[-1].number
    seconds = time.monotonic() - start
    print(f"cases {first} to {last}: {run} run, {failed} failed, {seconds:.0f} s", flush=True)
    return failed


@click.command(cls=Command)
@click.option("--seed", default=0, help="Another seed, other networks.")
@click.option("--count", default=50, help="Networks, ten of them an engine.")
@click.option("--only", type=int, metavar="CASE", help="This one alone, on its batch's engine.")
@click.option("--own", is_flag=True, help="With --only, on an engine of what it needs itself.")
def main(seed: int, count: int, only: int | None, own: bool) -> None:
    """Random networks of random repair methods: engines in Verilog against the golden."""
    batches = range(-(-count // BATCH)) if only is None else [only // BATCH]
    failed = 0
    for batch in batches:
        cases = batch_of(seed, batch)
        if only is None:
            cases = [case for case in cases if case.number < count]
        elif own:
            cases = [case for case in cases if case.number == only]
        with tempfile.TemporaryDirectory() as folder:
            failed += _run(cases, Path(folder) / "engines", only)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
