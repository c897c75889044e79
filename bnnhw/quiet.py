"""Ends a command that is still being imported at Ctrl-C and SIGTERM, with one line."""

from __future__ import annotations

import os
import signal
from typing import Any


def _end(number: int, frame: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)  # nothing has begun, so there is nothing to put in order


def end_at_signals() -> None:
    """Until bnnhw.cli.Command takes over, as it does when the command's work begins."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
