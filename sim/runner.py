"""Builds a Verilog bench with Verilator and runs its cocotb tests, from a kept build folder."""

import contextlib
import os
import re
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator

HERE = Path(__file__).parent
SETTINGS = (
    "-Wno-fatal", "-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "-DNO_ICE40_DEFAULT_ASSIGNMENTS",
    "--x-initial", "unique", "-O3", "--output-split", "5000",
)  # fmt: skip


class SimulationError(RuntimeError):
    """A bench did not build, or a test in it failed; the message names the log."""


class _Simulator(Verilator):
    """cocotb's runner, but only what a bench marks `public` is visible to Python.

    With everything visible the compiler needs ten minutes for an engine's symbol table, and the
    simulation runs at half the speed.
    """

    def _build_command(self):
        return [
            [word for word in command if word != "--public-flat-rw"]
            for command in super()._build_command()
        ]


@contextlib.contextmanager
def _environment(variables):
    """Replace this process's environment; without pytest's mark, which cocotb would heed."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def write_if_changed(path, text):
    """Write a file unless it already has this text, so that what is made from it is kept."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def primitives(library, path, replaced=()):
    """Copy the iCE40 simulation library without the modules in `replaced`."""
    text = Path(library).read_text()
    for name in replaced:
        text = re.sub(
            rf"^module {name} ?\(.*?^endmodule$", "", text, flags=re.DOTALL | re.MULTILINE
        )
    return write_if_changed(path, text)


def simulate(
    *, sources, top, test_module, folder, environment, parameters=None, plusargs=(),
    variables=None, programs=(),
):  # fmt: skip
    """Build `top` in folder/build, run the tests of `test_module` in `folder`.

    environment : the variables under which Verilator and make work.
    parameters : of the top module, which a new build is made for. plusargs : of the simulation.
    variables : added to the tests' environment. programs : C++ files that the sources call.
    Raises SimulationError, naming the log, if anything fails.
    """
    folder = Path(folder).resolve()
    results = folder / "results.xml"
    with _environment(environment):
        runner = _Simulator()
        step = folder / "build.log"
        try:
            runner.build(
                sources=[Path(source).resolve() for source in sources],
                hdl_toplevel=top, build_dir=folder / "build",
                build_args=[*SETTINGS, *map(str, programs)],
                parameters=parameters or {}, timescale=("1ns", "1ns"), log_file=step,
            )  # fmt: skip
            step = folder / "simulation.log"
            runner.test(
                test_module=test_module, hdl_toplevel=top, build_dir=folder / "build",
                test_dir=folder, results_xml=str(results), extra_env=variables or {},
                plusargs=plusargs, log_file=step,
            )  # fmt: skip
        except RuntimeError as fault:
            raise SimulationError(f"{top}: {_reason(step)} (log: {step})") from fault
    _, failed = get_results(results)
    if failed:
        raise SimulationError(f"{top}: {_reason(step)} (log: {step})")


def _reason(log):
    """The line of a log that says what went wrong, without the names of modules before it."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    pattern = re.compile(r"%Error.*|error: .*|(?<=SimulationStuck: ).*|\w+(Error|Exception): .*")
    found = filter(None, map(pattern.search, lines))
    return next((match[0] for match in found), "failed")
