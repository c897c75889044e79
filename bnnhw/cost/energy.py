"""Estimates the energy of an inference from what a design does and from published figures.

No board was measured. docs/energy.md says what the estimate is and what it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnnhw.cost.activity import Activity

_CURRENTS = "github.com/tinyvision-ai-inc/ice40_power, iCE40UP5K, core at 1.219 V"
_CALIBRATED = f"scripts/calibrate_energy.py from {_CURRENTS}"
_HOROWITZ = "Horowitz, ISSCC 2014, 64 bits of a cache at 45 nm and 0.9 V"
_SCALED = "x (1.219 / 0.9)^2 x 40 / 45 for voltage and process"


@dataclass(frozen=True)
class Coefficient:
    """value : joules each time it happens; for static and pll, watts.
    source : where the value comes from, and the way from the published figure to it.
    """

    value: float
    source: str


COEFFICIENTS = {
    "iCE40UP5K": dict(
        load=Coefficient(
            0.122e-12, f"{_CALIBRATED}: a product of 8 bits in LUTs takes 351 uA more at 12 MHz"
        ),
        multiplier_input=Coefficient(
            2.35e-12, f"{_CALIBRATED}: the same in a multiplier takes 237 uA more"
        ),
        flip_flop=Coefficient(
            0.0144e-12, f"{_CURRENTS}: 196 flip-flops more take 27.8 uA more at 12 MHz"
        ),
        clock=Coefficient(
            41.9e-12, f"{_CALIBRATED}: 1,154 uA more at 48 than at 16 MHz of the PLL, less the rest"
        ),
        ebr=Coefficient(
            1.02e-12, f"{_HOROWITZ}: 10 pJ of 8 KB, x sqrt(0.5 / 8) for 512 bytes, / 4 for 16 "
            f"bits, {_SCALED}",
        ),
        spram=Coefficient(8.15e-12, f"{_HOROWITZ}: 20 pJ of 32 KB, / 4 for 16 bits, {_SCALED}"),
        static=Coefficient(104e-6, f"{_CURRENTS}: 85.6 uA with a blank design"),
        pll=Coefficient(169e-6, f"{_CURRENTS}: 138.7 uA of the PLL's supply at 16 and 32 MHz"),
    )
}  # fmt: skip
COMPONENTS = ("logic", "flip_flops", "clock", "multipliers", "ebr", "spram", "static", "pll")


def microjoules(activity: Activity, clock_hz: float, device: str) -> dict[str, float]:
    """Returns {component: microjoules} of an inference at a clock."""
    per = {name: known.value for name, known in COEFFICIENTS[device].items()}
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
    activity: Activity, traffic: Mapping[str, Mapping[str, int]], device: str
) -> dict[str, dict[str, float]]:
    """Returns the microjoules of the accesses of bnnhw.compiler.traffic, as {way: {what:
    microjoules}}.

    A word lies over four memories. {"reads": {"idle": ...}} is what nobody asked for: the memories
    read in every cycle in which they do not write.
    """
    word = 4 * COEFFICIENTS[device]["spram"].value * 1e6
    known = sum(sum(words.values()) for words in traffic.values())
    words: dict[str, dict[str, float]] = {way: {**kinds} for way, kinds in traffic.items()}
    words["reads"]["idle"] = activity.spram / 4 - known
    return {
        way: {what: round(number * word, 4) for what, number in kinds.items()}
        for way, kinds in words.items()
    }


def estimate(
    activity: Activity, traffic: Mapping[str, Mapping[str, int]], images: str,
    clock_hz: float, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Returns the estimate as a row has it. images : what the activity was counted on."""
    parts = microjoules(activity, clock_hz, device)
    return dict(
        estimate=True, total=round(sum(parts.values()), 3), microjoules=parts,
        large_memory=large_memory(activity, traffic, device), activity=asdict(activity),
        images=images, clock_mhz=clock_hz / 1e6, device=device,
    )  # fmt: skip
