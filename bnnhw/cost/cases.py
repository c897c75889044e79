"""Follows the cases of a measurement to their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnnhw.cost.bench import Case, perform
from bnnhw.cost.larger import further
from bnnhw.jobs.follower import Follower


class Cases(Follower[Case]):
    """The cases of a measurement, the baseline first. The bar counts methods.

    A method that the board has no room for adds a case on a larger board.
    ended : the cases that have ended.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(cases, perform, "measure", "methods")
        self.board = cases[0].board
        self.ended: list[Case] = []

    def progress(self, waiting: int) -> tuple[int, int]:
        return len(self.jobs) - waiting, len(self.jobs)

    def take(self, job: Case, error: BaseException | None, left: int) -> list[Case]:
        name = job.method if job.board == self.board else f"{job.method} on {job.board}"
        more: list[Case] = []
        if error is None:
            self.ended.append(job)
            line = _line(job.row())
            more = further(job, self.jobs)
            self.jobs += more
        else:
            line = "failed, " + " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(f"{name}: {line}")
        self.tell(f"{name}: {line}")
        return more


def _line(row: dict[str, Any]) -> str:
    """Returns what a row says, in a line."""
    if "cells" not in row:
        return f"{row['status']}: {row['reason']}"
    cells = ", ".join(f"{number} {name.upper()}" for name, number in row["cells"].items())
    fmax = f", {row['fmax_mhz']['median']} MHz" if "fmax_mhz" in row else ""
    return f"{row['status']}: {cells}{fmax}, {row['cycles']['busy']} cycles; {row['seconds']} s"
