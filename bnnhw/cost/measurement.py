"""A measurement: every method's network on a board, and the files that say what each costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnnhw.boards import BOARDS
from bnnhw.cost.accuracies import accuracies
from bnnhw.cost.bench import Case
from bnnhw.cost.larger import attach
from bnnhw.cost.page import page
from bnnhw.cost.tables import comma_separated, entries, markdown
from bnnhw.flow import tools
from bnnhw.jobs.files import write_text
from bnnhw.network.methods import Method, isolated, own, select, together
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import checkpoint

NAME = "repair-cost"


@dataclass(frozen=True)
class Measurement:
    """The cases of one network on one board, the baseline first."""

    network: str
    board: str
    seeds: int
    images: int
    out: Path
    cases: tuple[Case, ...]
    protocol: str | None
    accuracy: dict[str, dict[str, Any]]
    command: str

    def publish(self, ended: Sequence[Case]) -> None:
        """Write the four files of the cases that have ended."""
        table = entries([case.row() for case in self.cases if case in ended], self.accuracy)
        attach(table, [case for case in ended if case not in self.cases], self.accuracy)
        board = BOARDS[self.board]
        content: dict[str, Any] = dict(
            network=self.network, board=self.board, device=f"{board.device}-{board.package}",
            spec=self.cases[0].spec.to_dict(), seeds=self.seeds, images=self.images,
            clock_mhz=board.made_hz() / 1e6, protocol=self.protocol, tools=tools.versions(),
            command=self.command, methods=table,
        )  # fmt: skip
        texts = {".json": json.dumps(content, indent=2) + "\n", ".html": page(content),
                 ".csv": comma_separated(content["methods"]), ".md": markdown(content)}  # fmt: skip
        for suffix, text in texts.items():
            write_text(self.out / f"{NAME}{suffix}", text)


def choose(wanted: str, network: str) -> list[Method]:
    """Returns the baseline and the methods that a list names.

    `stem,padding=minus-one+stem=thermometer` is such a list. `all` is every method alone, and those
    of the bundled network together.
    """
    names = [name.strip() for name in wanted.split(",")]
    joined = [together(name) for name in names if "+" in name]
    if "all" in names:
        bundled = own(checkpoint.load(checkpoint.bundled(network)).spec.repair)
        methods = [*isolated(), bundled, *joined]
    else:
        alone = [name for name in names if "+" not in name]
        methods = [*select(isolated(), alone, "--methods {!r}"), *joined]
    return [*{method.name: method for method in methods}.values()]


def specifications(
    network: str, methods: Sequence[Method], fraction: int
) -> dict[str, NetworkSpec]:
    """Returns every method's spec, on the shape of a bundled network with the study's number
    formats.

    fraction : bits after the point of the residual stream instead of the study's.
    """
    shape = checkpoint.load(checkpoint.bundled(network)).spec
    formats = NumberFormats(residual_fraction=fraction)
    return {m.name: replace(shape, repair=m.repair, formats=formats) for m in methods}


def plan(
    network: str, board: str, methods: Sequence[Method], specs: Mapping[str, NetworkSpec],
    seeds: int, images: int, out: Path, models: Path | None, command: str,
    energy: bool, data: Path | None, resize: bool = False,
) -> Measurement:  # fmt: skip
    """Returns the measurement: what is to be measured, and what is known already."""
    protocol, accuracy = accuracies(models, specs) if models else (None, {})
    cases = tuple(
        Case(
            method.name,
            method.settings,
            specs[method.name],
            board,
            seeds,
            images,
            out,
            energy,
            data,
            resize,
        )
        for method in methods
    )
    return Measurement(network, board, seeds, images, out, cases, protocol, accuracy, command)
