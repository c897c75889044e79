"""The networks that a study trains: every method alone, and the best of each category together.

The protocol is de Putter and Corporaal's (arXiv:2206.12322): each method against one baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.repair import BASELINE, CATEGORIES, Repair

COMPANIONS = {("activation_position", "before-add"): {"activation": "rprelu"}}


@dataclass(frozen=True)
class Method:
    """A network of the study.

    settings : what differs from the baseline, by the name of the Repair's field.
    category : the one it belongs to; "" for the baseline and for combinations.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    category: str = ""

    @property
    def repair(self) -> Repair:
        return replace(BASELINE, **self.settings)


BASE = Method("baseline")


def setting(name: str, value: Any) -> str:
    """Returns NAME=VALUE as --repair takes it."""
    return f"{name}={('off', 'on')[value] if isinstance(value, bool) else value}"


def isolated() -> tuple[Method, ...]:
    """Returns the baseline, then every value of every category that differs from it, in their
    order.

    A method that does nothing alone comes with its companion.
    """
    methods = [BASE]
    for category in CATEGORIES:
        name = category.name
        for value in category.values:
            if value != getattr(BASELINE, name):
                settings = {name: value} | COMPANIONS.get((name, value), {})
                methods.append(Method(setting(name, value), settings, name))
    return tuple(methods)


def select(methods: Sequence[Method], names: Sequence[str], option: str) -> list[Method]:
    """Returns the baseline and the methods that are named, by themselves or by their category.

    option : how a name was given, such as `--only {}`; the error about an unknown name says it.
    """
    known = {m.name for m in methods} | {m.category for m in methods} - {""}
    for name in names:
        if name not in known:
            raise UserError(
                f"{option.format(name)}: no such method; python -m bnnhw.train --list-repairs"
            )
    return [m for m in methods if m is BASE or {m.name, m.category} & {*names}]


def together(name: str) -> Method:
    """Returns several methods as one network, from their names: METHOD=VALUE+METHOD=VALUE+..."""
    alone = {method.name: method for method in isolated()}
    settings: dict[str, Any] = {}
    for part in name.split("+"):
        if part not in alone:
            raise UserError(
                f"{name!r}: there is no method {part!r}; python -m bnnhw.train --list-repairs"
            )
        if reason := _contradiction(settings, alone[part]):
            raise UserError(f"{name!r}: cannot be had together: {reason}")
        settings |= alone[part].settings
    return Method(name, settings)


def own(repair: Repair) -> Method:
    """Returns the methods of a network together."""
    fields = [category.name for category in CATEGORIES]
    settings = {f: getattr(repair, f) for f in fields if getattr(repair, f) != getattr(BASELINE, f)}
    return Method("+".join(setting(*item) for item in settings.items()), settings)


@dataclass(frozen=True)
class Choice:
    """The best methods together.

    taken : names of the methods in it, the best first. dropped : name -> why it is not in it.
    """

    settings: Mapping[str, Any]
    taken: tuple[str, ...]
    dropped: Mapping[str, str]


def combine(accuracy: Mapping[str, float], margin: float = 0.0) -> Choice:
    """Returns the best method of each category as one network, the best of all first.

    accuracy : mean validation accuracy of each method that was trained alone, by its name, the
        baseline's among them.

    A method counts where it beats the baseline, and its companion alone if it has one, by more than
    `margin`. A method that cannot be had with those before it is dropped.
    """
    tried = [method for method in isolated() if method.name in accuracy]
    better = [
        method
        for method in tried
        if all(
            accuracy[method.name] > accuracy[other.name] + margin
            for other in tried
            if other.settings.items() < method.settings.items()
        )
    ]
    best: dict[str, Method] = {}
    for method in sorted(better, key=lambda method: -accuracy[method.name]):
        best.setdefault(method.category, method)
    best.pop(BASE.category, None)
    settings: dict[str, Any] = {}
    taken, dropped = [], {}
    for method in best.values():
        if reason := _contradiction(settings, method):
            dropped[method.name] = reason
        else:
            settings |= method.settings
            taken.append(method.name)
    return Choice(settings, tuple(taken), dropped)


def _contradiction(settings: Mapping[str, Any], method: Method) -> str | None:
    """Returns why a network with these settings cannot have the method too, or None if it can."""
    for name, value in method.settings.items():
        if settings.get(name, value) != value:
            return f"{setting(name, settings[name])} is taken"
    try:
        replace(BASELINE, **{**settings, **method.settings})
    except UserError as error:
        return str(error)
    return None


def combined(choice: Choice, leave_one_out: bool) -> tuple[Method, ...]:
    """Returns the baseline, the combination and, if asked for, it without each of its methods."""
    methods = [BASE, Method("combined", choice.settings)]
    if leave_one_out:
        alone = {method.name: method.settings for method in isolated()}
        for name in choice.taken:
            rest: dict[str, Any] = {}
            for other in choice.taken:
                rest |= alone[other] if other != name else {}
            if rest != choice.settings:
                methods.append(Method(f"combined without {name}", rest))
    return tuple(methods)
