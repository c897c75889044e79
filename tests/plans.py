"""What tests of plans share: networks of every shape, and what a plan says of itself."""

from __future__ import annotations

from typing import Any

from bnnhw.compiler.plan import DoesNotFit, Plan, Step
from bnnhw.gateware.program import Geometry, Load, Sinks, Sources, Walk
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import untrained

WIDE = NumberFormats(residual_width=12, residual_fraction=6)
SPECS = {
    "digits": NetworkSpec(depth=8, widths=(16, 32, 48), input=(8, 8, 1)),
    "cifar": NetworkSpec(depth=20, widths=(16, 32, 64), input=(32, 32, 3)),
    "odd": NetworkSpec(depth=10, widths=(16, 24), input=(7, 5, 2), classes=5),
    "wide stream": NetworkSpec(depth=6, widths=(16, 32), input=(8, 6, 3), formats=WIDE),
    "every two": NetworkSpec(depth=10, widths=(6, 32), input=(9, 8, 1), classes=2,
                             repair=Repair("ste", False, "minus-one")),
    "many classes": NetworkSpec(depth=6, widths=(16, 32), input=(4, 4, 1), classes=60),
}  # fmt: skip


def network_of(spec: NetworkSpec) -> IntegerNetwork:
    model = untrained(spec)
    model.head.bias.data.zero_()  # so that it fits beside the weights of any map
    return lower(model)


def words_of(step: Step) -> tuple:
    """A step's Geometry, Sources and Sinks, read as the engine does."""
    kinds = zip((Geometry, Sources, Sinks), step.words[:3], strict=True)
    return tuple(kind.from_bits(word) for kind, word in kinds)


def walk_of(step: Step) -> Any:
    """A step's Walk."""
    return Walk.from_bits(step.words[3])


def loads_of(plan: Plan) -> list:
    """The Load of each step, which the one before has, the first's the program."""
    words = [int(plan.image[0]), *(step.words[4] for step in plan.steps)]
    assert words.pop() == words[0]  # the last step loads the next frame's first
    return [Load.from_bits(word) for word in words]


def regions(plan: Plan) -> dict[str, range]:
    return {name: range(start, start + size) for name, start, size in plan.memory_map}


def size_of(place) -> tuple[int, int, int]:
    return place.height, place.width, place.channels


def names_of(error: DoesNotFit) -> set[str]:
    return {part.name.split(" (")[0] for part in error.resources if not part.fits}
