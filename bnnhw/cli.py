"""What every command line shares: how it ends. docs/errors.md has the table of exit codes.

A user's fault is one line on stderr and exit code 2. Ctrl-C and SIGTERM are one line and the exit
codes that shells have for them.
"""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bnnhw.errors import UserError

DATA = (
    "Folder of images in class folders, .npz with x and y, directory of CIFAR or MNIST; digits "
    "need none."
)
MISMATCH = 1  # exit code: what was compared is not the same
FAULT = 2  # exit code: what the user gave or the machine has
INTERRUPTED, TERMINATED = 130, 143  # exit codes, as shells have them for Ctrl-C and SIGTERM
PLACES = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR,
    errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO, errno.EMFILE, errno.ELOOP,
}  # fmt: skip
UNPRINTABLE = "bnnhw-unprintable"


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, but for the exit code."""


class Command(click.Command):
    """A click command that prints UserError as `error: ...` and exits with 2.

    So does what the machine refuses: a full disk, a folder that cannot be written. Ctrl-C and
    SIGTERM end it with a line of their own. Use: @click.command(cls=Command). Also where main() is
    called with standalone_mode=True only.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            _print_anything(stream)
        try:
            with _terminable():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except UserError as error:
            _tell(f"error: {' '.join(str(error).split())}")
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            _tell("interrupted")
            ctx.exit(_code(stop))
        except OSError as error:
            if error.errno not in PLACES:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _tell(f"error: {where}{error.strerror}; make room, or choose a place you may write to")
            _give_up_stdout(error)
            ctx.exit(FAULT)


@contextmanager
def one_line(ctx: click.Context) -> Iterator[None]:
    """A wrong option ends the command with one line, not with three as click has it."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        _tell(f"error: {' '.join(error.format_message().split())}")
        ctx.exit(FAULT)


@contextmanager
def interruptible(line: str = "whole epochs are kept, go on with --resume") -> Iterator[None]:
    """Ctrl-C and SIGTERM end a command with a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        _tell(f"interrupted; {line}")
        sys.exit(_code(stop))


def numbers(option: str, text: str, separator: str) -> tuple[int, ...]:
    """Returns the whole numbers between separators, such as 16,32,64 and 32x32x3."""
    try:
        return tuple(int(part) for part in text.lower().split(separator))
    except ValueError:
        example = {"x": "32x32x3"}.get(separator, f"16{separator}32{separator}64")
        raise UserError(f"{option} {text}: give whole numbers such as {example}") from None


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises Terminated, Ctrl-C KeyboardInterrupt, whatever they did before."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    try:
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    except ValueError:  # not the main thread, which alone gets signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _code(stop: KeyboardInterrupt) -> int:
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _give_up_stdout(error: OSError) -> None:
    """Have Python not fail once more at its end where standard output cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_anything(stream: Any) -> None:
    """Have a stream print file names as they are, and a ? for what its encoding lacks."""
    codecs.register_error(UNPRINTABLE, _unprintable)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=UNPRINTABLE)


def _unprintable(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    # A byte of a file name that is no text is a surrogate from 0xdc80 on.
    return bytes(ord(c) & 0xFF if 0xDC80 <= ord(c) < 0xDD00 else ord("?") for c in text), error.end


def read_toml(path: Path, what: str = "TOML file") -> dict[str, Any]:
    """Returns the tables of a TOML file. Raises UserError that asks for a `what`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a {what}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
