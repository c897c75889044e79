"""What every command line shares.

A user's fault is one line on stderr and exit code 2; Ctrl-C is one line and exit code 130.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bnnhw.errors import UserError

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C


class Command(click.Command):
    """A click command that prints UserError as `error: ...` and exits with 2.

    Use: @click.command(cls=Command). Also where main() is called with standalone_mode=True only.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            ctx.exit(2)


@contextmanager
def interruptible(line: str = "whole epochs are kept, go on with --resume") -> Iterator[None]:
    """Ctrl-C ends a command with one line and the exit code that shells have for it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {line}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def numbers(option: str, text: str, separator: str) -> tuple[int, ...]:
    """Whole numbers between separators, such as 16,32,64 and 32x32x3."""
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers such as 8{separator}16") from None
