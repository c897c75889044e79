"""python -m bnnhw.measure: build every repair method alone, and compare its cost."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bnnhw.cli import Command
from bnnhw.cost.accuracies import accuracies
from bnnhw.cost.bench import Case
from bnnhw.cost.cases import Cases
from bnnhw.cost.larger import attach
from bnnhw.cost.page import page
from bnnhw.cost.tables import comma_separated, entries, markdown
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.flow.design import BOARDS, clock_hz
from bnnhw.jobs.files import write_text
from bnnhw.jobs.pool import AGAIN, workers
from bnnhw.network.methods import Method, isolated, own, select, together
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import checkpoint
from bnnhw.training.journal import interruptible

STOPS = ("synth", "pnr")
NAME = "repair-cost"
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True)
class Measurement:
    """What is asked: `cases`, the baseline first, of one network on one board."""

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
        board = BOARDS[self.board].BOARD
        content = dict(
            network=self.network, board=self.board, device=f"{board.device}-{board.package}",
            spec=self.cases[0].spec.to_dict(), seeds=self.seeds, images=self.images,
            clock_mhz=clock_hz(self.board) / 1e6, protocol=self.protocol, tools=tools.versions(),
            command=self.command, methods=table,
        )  # fmt: skip
        texts = {".json": json.dumps(content, indent=2) + "\n", ".html": page(content),
                 ".csv": comma_separated(content["methods"]), ".md": markdown(content)}  # fmt: skip
        for suffix, text in texts.items():
            write_text(self.out / f"{NAME}{suffix}", text)


def choose(wanted: str, network: str) -> list[Method]:
    """The baseline and what a list such as `stem,padding=minus-one+stem=thermometer` names.

    `all` is every method alone, and those of the bundled network together.
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
    """Every method on the shape of a bundled network, with the study's number formats but for
    the bits after the point of the residual stream."""
    shape = checkpoint.load(checkpoint.bundled(network)).spec
    formats = NumberFormats(residual_fraction=fraction)
    return {m.name: replace(shape, repair=m.repair, formats=formats) for m in methods}


def plan(
    network: str, board: str, methods: Sequence[Method], specs: Mapping[str, NetworkSpec],
    seeds: int, images: int, out: Path, models: Path | None, command: str,
    energy: bool, data: Path | None,
) -> Measurement:  # fmt: skip
    """What is to be measured, and what is known already."""
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
        )
        for method in methods
    )
    return Measurement(network, board, seeds, images, out, cases, protocol, accuracy, command)


def repeated(context: click.Context) -> str:
    """The command that measures the same, but for where it runs and what it leaves where."""
    words = ["python -m bnnhw.measure"]
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and option.name not in ("jobs", "out", "scheduler"):
            value = context.params[str(option.name)]
            if isinstance(value, bool):
                words += (option.opts if value else option.secondary_opts)[:1]
            else:
                words += [option.opts[0], shlex.quote(str(value))]
    return " ".join(words)


@click.command(cls=Command)
@click.option("--board", type=click.Choice(sorted(BOARDS)), required=True)
@click.option("--network", type=click.Choice(checkpoint.bundled_names()), required=True,
              help="Whose shape the baseline has.")  # fmt: skip
@click.option("--methods", default="all", show_default=True, metavar="all|A,B=C,D=E+F=G...",
              help="Names of methods or of categories; those joined by + together.")  # fmt: skip
@click.option("--stop-after", type=click.Choice(STOPS), default="pnr", show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True,
              help="Placements of each network.")  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=1, show_default=True,
              help="Images of each network's proof, at random, and of its energy.")  # fmt: skip
@click.option("--energy/--no-energy", default=True, show_default=True,
              help="Estimate the energy of an inference from the netlist's activity.")  # fmt: skip
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="CIFAR whose test images the energy is of; else random ones.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True,
              help="Methods at a time on this machine.")  # fmt: skip
@click.option("--out", type=DIRECTORY, help="[default: build/repair-cost-NETWORK]")
@click.option("--models", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Where trained networks of these methods or a study's results are.")  # fmt: skip
@click.option("--residual-fraction", "fraction", type=click.IntRange(0, 7), show_default=True,
              default=NumberFormats.residual_fraction,
              help="Bits after the point of the residual stream, as trained.")  # fmt: skip
@click.option(
    "--scheduler", help="Address of a Dask scheduler whose workers measure, in the same OUT."
)
@click.pass_context
def main(
    context: click.Context, board: str, network: str, methods: str, stop_after: str, seeds: int,
    images: int, energy: bool, data: Path | None, jobs: int, out: Path | None,
    models: Path | None, fraction: int, scheduler: str | None,
) -> None:  # fmt: skip
    """Measure what each method adds to the baseline; what stands is not measured again."""
    out = (out or Path("build") / f"{NAME}-{network}").resolve()
    seeds = 0 if stop_after == "synth" else seeds
    chosen = choose(methods, network)
    specs = specifications(network, chosen, fraction)
    command = repeated(context)
    measurement = plan(
        network, board, chosen, specs, seeds, images, out, models, command, energy, data
    )
    follower = Cases(measurement.cases)
    with interruptible(AGAIN), workers(jobs, scheduler) as executor, follower.bar:
        follower.run(executor, lambda: measurement.publish(follower.ended))
    if follower.failed:
        raise UserError(
            f"{len(follower.failed)} of {len(follower.jobs)} methods failed, "
            f"{follower.failed[0]}; the same command tries them again"
        )
    shutil.rmtree(out / "work", ignore_errors=True)
    click.echo(out / f"{NAME}.md")


if __name__ == "__main__":
    main()
