"""Runs a module that needs nothing but a clock, and counts what changes in it."""

from pathlib import Path

from bnnhw.sim.runner import HERE, primitives, simulate, write_if_changed
from bnnhw.sim.toggles import PROGRAM, instrumented, read_counts


def count(netlist, *, library, cycles, changed, high=(), folder, environment):
    """Counts of `cycles` cycles of `top`, Verilog whose only input is `clk`.

    library : cells_sim.v of Yosys. changed, high : as in sim.toggles.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = instrumented(netlist, clock="clk", counting="1'b1", changed=changed, high=high)
    source = write_if_changed(folder / "counted.v", text)
    cells = primitives(library, folder / "cells.v", replaced=("SB_PLL40_PAD", "SB_IO"))
    simulate(
        sources=[HERE / "clock_bench.v", HERE / "models" / "ice40.v", cells, source],
        top="clock_bench", test_module="bnnhw.sim.clock_test", folder=folder,
        environment=environment,
        variables={"CLOCK_BENCH": str(cycles)}, programs=[PROGRAM],
    )  # fmt: skip
    return read_counts(folder, changed=len(changed), high=len(high))
