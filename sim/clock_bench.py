"""Runs a module that needs nothing but a clock, and counts what changes in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bnnhw.boards.bench import Models
from bnnhw.sim.runner import HERE, primitives, simulate, write_if_changed
from bnnhw.sim.toggles import PROGRAM, Counts, instrumented, read_counts


def count(
    netlist: str, *, models: Models, share: Path, cycles: int, changed: Sequence[str],
    high: Sequence[str] = (), folder: Path, environment: Mapping[str, str],
) -> Counts:  # fmt: skip
    """Returns the counts of `cycles` cycles of `top`, Verilog whose only input is `clk`.

    models, share : as in sim.runner.primitives. changed, high : as in sim.toggles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = instrumented(netlist, clock="clk", counting="1'b1", changed=changed, high=high)
    source = write_if_changed(folder / "counted.v", text)
    simulate(
        sources=[HERE / "clock_bench.v", *primitives(models, share, folder), source],
        top="clock_bench", test_module="bnnhw.sim.clock_test", folder=folder,
        environment=environment,
        variables={"CLOCK_BENCH": str(cycles)}, programs=[PROGRAM],
    )  # fmt: skip
    return read_counts(folder, changed=len(changed), high=len(high))
