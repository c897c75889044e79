"""Every port of every component, and every member of a signature, is named in its docstring."""

import inspect
import re
from importlib import import_module
from pkgutil import iter_modules

import pytest
from amaranth.hdl import Fragment
from amaranth.lib import wiring

from bnnhw import boards, gateware
from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.flow.boot import make_boot_image
from bnnhw.flow.design import make_top
from bnnhw.gateware.core import Core
from bnnhw.gateware.engine import Engine
from bnnhw.lowering.lower import lower
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.untrained import untrained

BY_CALLER = {"Arbiter": "clients"}  # the argument that names the members
METHODS = (  # whose engines together have every component
    Repair(activation="prelu"),
    Repair(activation="prelu", scaling="spatial"),
    Repair(squeeze_excitation="se", downsample="conv1x1-8bit"),
    Repair(stem="thermometer", ensemble="group-2"),
    Repair(activation="maxout"),
)


def interfaces():
    """{name: class} of the components and signatures that gateware and boards define."""
    found = {}
    for package in (gateware, boards):
        for info in iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(import_module(info.name)).items():
                own = inspect.isclass(value) and value.__module__ == info.name
                if own and issubclass(value, wiring.Component | wiring.Signature):
                    found[f"{info.name}.{name}"] = value
    return found


def elaborate_a_board(repair, streams=False):
    """Make the whole design of a small network. streams : its weights come from the flash."""
    spec = NetworkSpec(depth=6, widths=(16, 32), input=(8, 8, 1), repair=repair)
    plan = make_plan(lower(untrained(spec)), BOARD, streams=streams)
    boot = make_boot_image(plan, clock_hz=BOARD.clock_hz, baud=BOARD.max_baud)
    BOARD.prepare(make_top(plan, BOARD, boot, clock_hz=BOARD.clock_hz))
    if not streams:
        engine = Engine(plan.parameters, image_base=plan.image_base)
        core = Core(engine, plan.image.tolist(), words=plan.memory_words, inside=False)
        Fragment.get(core, "a design")


def missing(kind, members):
    """Those that the class's docstring does not have as a whole word."""
    text = inspect.getdoc(kind) or ""
    return sorted(member for member in members if not re.search(rf"\b{member}\b", text))


@pytest.fixture(scope="module")
def members():
    """{class: names of its members} of all that these designs consist of."""
    found = {}

    def watched(kind, members_of):
        made = kind.__init__

        def watching(self, *arguments, **settings):
            made(self, *arguments, **settings)
            found.setdefault(type(self), set()).update(members_of(self))

        return watching

    with pytest.MonkeyPatch.context() as patch:
        for kind, members_of in (
            (wiring.Component, lambda component: component.signature.members),
            (wiring.Signature, lambda signature: signature.members),
        ):
            patch.setattr(kind, "__init__", watched(kind, members_of))
        for repair in METHODS:
            elaborate_a_board(repair)
        elaborate_a_board(Repair(), streams=True)
    return found


@pytest.mark.parametrize("name", interfaces())
def test_every_member_is_named(name, members):
    kind = interfaces()[name]
    assert kind in members, f"{name} is in no design of METHODS: its ports are not seen"
    own = members[kind]
    if kind.__name__ in BY_CALLER:
        own = {"memory", BY_CALLER[kind.__name__]}
    assert not missing(kind, own)


def test_a_member_that_is_not_named_is_found():
    class Example:
        """i, o_valid : ports."""

    assert missing(Example, ["i", "o", "o_valid", "valid"]) == ["o", "valid"]
