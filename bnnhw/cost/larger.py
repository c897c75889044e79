"""Measures methods that a board has no room for on the next larger one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bnnhw.boards import BOARDS
from bnnhw.cost.bench import OVER, REFUSED, Case
from bnnhw.cost.tables import Entry, entries


def further(case: Case, asked: Sequence[Case]) -> list[Case]:
    """Returns the cases to measure as well, now that `case` has ended.

    A method that does not fit its board is measured on the board's `larger`, and so is the
    baseline, which it is compared with. asked : the cases of the measurement, the baseline first.
    """
    status, larger = case.row()["status"], BOARDS[case.board].larger
    if status == OVER:
        more = [replace(case, board=larger)] if larger else []
    else:
        more = [replace(asked[0], board=case.board)] if status != REFUSED else []
    return [other for other in more if other not in asked]


def attach(
    table: Sequence[Entry], ended: Sequence[Case], accuracy: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give each entry of `table` as `larger` its entry on a larger board, if one has ended there.

    Differences there are from the baseline on that board. Its clock is `clock_mhz`.
    """
    found = {entry["method"]: entry for entry in table}
    for name, board in BOARDS.items():
        there = [case.row() for case in ended if case.board == name]
        for entry in entries(there, accuracy):
            found[entry["method"]]["larger"] = entry | dict(clock_mhz=board.made_hz() / 1e6)
