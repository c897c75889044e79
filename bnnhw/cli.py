"""What every command line shares: a user's fault is one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from typing import Any

import click

from bnnhw.errors import UserError


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
