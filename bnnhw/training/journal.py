"""What a training tells: a line on the terminal, JSON lines beside its file, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bnnhw.errors import UserError
from bnnhw.jobs.files import replacing


def lines_path(out: Path) -> Path:
    """Returns where the metrics of the training of `out` are, one JSON object per epoch."""
    return out.with_name(out.name + ".log.jsonl")


def state_path(out: Path) -> Path:
    """Returns where the state is with which the training of `out` goes on."""
    return out.with_name(out.name + ".state")


def prepare(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of `out`. Raises UserError where a network or a training would be lost."""
    there = next((path for path in (out, state_path(out)) if path.exists()), None)
    if there is not None and not resume and not overwrite:
        raise UserError(
            f"{there}: is there already; --resume goes on with it, --overwrite replaces it"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}; choose another place") from None


class Lines:
    """Appends the metrics of each epoch to a file of JSON lines.

    epoch : the last epoch that is kept. Lines of later epochs are dropped; these run again.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8") if epoch and path.exists() else ""
            lines = [line for line in text.splitlines() if _epoch(line) <= epoch]
            with replacing(path) as partial:
                partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error}); choose another --out") from None

    def __call__(self, entry: dict[str, Any]) -> None:
        if "epoch" in entry:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def to_all(logs: Sequence[Callable[[dict[str, Any]], None]]) -> Callable[[dict[str, Any]], None]:
    """Returns a log that tells each of these."""

    def tell(entry: dict[str, Any]) -> None:
        for log in logs:
            log(entry)

    return tell


def _epoch(line: str) -> float:
    """Returns the epoch of a line. A torn line, which is not ours, comes after all epochs."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class TensorBoard:
    """Writes the metrics of each epoch for TensorBoard."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                f"--log {directory}: needs the package tensorboard; pip install tensorboard"
            ) from None
        self.writer = SummaryWriter(str(directory))

    def __call__(self, entry: dict[str, Any]) -> None:
        if "epoch" in entry:
            for name in entry.keys() - {"epoch"}:
                self.writer.add_scalar(name, entry[name], entry["epoch"])
            self.writer.flush()


class Terminal:
    """Shows a line with the time left on a terminal, one line per epoch elsewhere, and notes."""

    def __init__(self, silent: bool = False) -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>4.1f} %"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
            disable=silent,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=1.0)

    def __call__(self, entry: dict[str, Any]) -> None:
        if "done" in entry:
            self.bar.update(self.task, completed=entry["done"])
            return
        if "note" in entry:
            self.bar.console.print(entry["note"], highlight=False)
            return
        self.bar.console.print(
            f"epoch {entry['epoch']}: loss {entry['loss']}, "
            f"validation {entry['validation']} %, {entry['seconds']} s", highlight=False,
        )  # fmt: skip
