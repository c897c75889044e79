"""Assertions in components, checked in every simulation; a board's design has none of them.

Amaranth hands a component the platform that it is elaborated for, and None in a simulation.
"""

from typing import Any

from amaranth.hdl import Assert, Module, Signal, Value, ValueLike


def check(m: Module, platform: object, condition: ValueLike, message: str) -> None:
    """Assert that a condition holds at the end of each cycle in which the context is active."""
    if platform is None:
        m.d.sync += Assert(condition, message)


def check_held(m: Module, platform: object, name: str, offered: Any) -> None:
    """Assert that a stream keeps an offer, and its payload, until it is taken."""
    if platform is None:
        payload = Value.cast(offered.payload)
        waiting, before = Signal(name=f"{name}_waiting"), Signal.like(payload)
        m.d.sync += [waiting.eq(offered.valid & ~offered.ready), before.eq(payload)]
        kept = offered.valid & (payload == before)
        m.d.sync += Assert(~waiting | kept, f"{name}: an offer changed before it was taken")
