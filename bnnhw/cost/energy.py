"""Estimates the energy of an inference from what a design does and from published figures.

No board was measured. docs/energy.md says what the estimate is and what it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bnnhw.boards.numbers import Board
from bnnhw.cost.activity import Activity

COMPONENTS = ("logic", "flip_flops", "clock", "multipliers", "ebr", "spram", "static", "pll")


def microjoules(activity: Activity, clock_hz: float, board: Board) -> dict[str, float]:
    """Returns {component: microjoules} of an inference on a board of known energy."""
    per = {name: known.value for name, known in board.energy.items()}
    seconds = activity.cycles / clock_hz
    joules = dict(
        logic=activity.loads * per["load"],
        flip_flops=activity.flip_flops * activity.cycles * per["flip_flop"],
        clock=activity.cycles * per["clock"],
        multipliers=activity.multiplier_inputs * per["multiplier_input"],
        ebr=activity.ebr * per["ebr"],
        spram=activity.spram * per["spram"],
        static=seconds * per["static"],
        pll=seconds * per["pll"],
    )
    return {name: round(value * 1e6, 4) for name, value in joules.items()}


def large_memory(
    activity: Activity, traffic: Mapping[str, Mapping[str, int]], board: Board
) -> dict[str, dict[str, float]]:
    """Returns the microjoules of the accesses of bnnhw.compiler.traffic, as {way: {what:
    microjoules}}.

    A word lies over all memories of the kind. {"reads": {"idle": ...}} is what nobody asked for:
    the memories read in every cycle in which they do not write.
    """
    memories = board.budget["spram"]
    word = memories * board.energy["spram"].value * 1e6
    known = sum(sum(words.values()) for words in traffic.values())
    words: dict[str, dict[str, float]] = {way: {**kinds} for way, kinds in traffic.items()}
    words["reads"]["idle"] = activity.spram / memories - known
    return {
        way: {what: round(number * word, 4) for what, number in kinds.items()}
        for way, kinds in words.items()
    }


def estimate(
    activity: Activity, traffic: Mapping[str, Mapping[str, int]], images: str,
    clock_hz: float, board: Board,
) -> dict[str, Any]:  # fmt: skip
    """Returns the estimate as a row has it. images : what the activity was counted on."""
    parts = microjoules(activity, clock_hz, board)
    return dict(
        estimate=True, total=round(sum(parts.values()), 3), microjoules=parts,
        large_memory=large_memory(activity, traffic, board), activity=asdict(activity),
        images=images, clock_mhz=clock_hz / 1e6, device=board.device,
    )  # fmt: skip
