"""Tells which stage of a long command runs, and keeps how long each took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape


class Stages:
    """Prints a line when a stage starts, and one with its seconds when it ends.

    seconds : {stage: seconds} of the stages that ended, also by an error.
    started_at : when the first stage started, in seconds of the epoch, as files have it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self.started_at = time.time()
        self._started = time.monotonic()

    @contextlib.contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Run a stage. On a terminal a spinner turns meanwhile."""
        started = time.monotonic()
        self.tell(f"{name}: {what}")
        try:
            with self.console.status(f"{name} ..."):
                yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)
            self.tell(f"{name}: {self.seconds[name]:.1f} s")

    def tell(self, line: str) -> None:
        """Print a line after the time since the start."""
        elapsed = time.monotonic() - self._started
        self.console.print(
            f"[dim]{elapsed:7.1f} s[/dim]  {escape(line)}", highlight=False, emoji=False
        )
