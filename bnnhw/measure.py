"""python -m bnnhw.measure: build every repair method alone, and compare its cost."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import click
from click.core import ParameterSource

from bnnhw.boards import BOARDS
from bnnhw.cli import Command, interruptible
from bnnhw.cost.activity import choose_images
from bnnhw.cost.cases import Cases
from bnnhw.cost.measurement import NAME, choose, plan, specifications
from bnnhw.errors import UserError
from bnnhw.jobs.locks import alone_in
from bnnhw.jobs.pool import AGAIN, workers
from bnnhw.network.spec import NumberFormats
from bnnhw.nn import checkpoint

STOPS = ("synth", "pnr")
DIRECTORY = click.Path(file_okay=False, path_type=Path)


def repeated(context: click.Context) -> str:
    """Returns the command that measures the same, without where it runs and leaves its files."""
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
@click.option("--data", type=click.Path(exists=True, path_type=Path),
              help="Folder of images, .npz or CIFAR, for the energy; else random.")  # fmt: skip
@click.option("--resize", is_flag=True, help="Resize the images to what the network takes.")
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
    images: int, energy: bool, data: Path | None, resize: bool, jobs: int, out: Path | None,
    models: Path | None, fraction: int, scheduler: str | None,
) -> None:  # fmt: skip
    """Measure what each method adds to the baseline; what stands is not measured again."""
    out = (out or Path("build") / f"{NAME}-{network}").resolve()
    seeds = 0 if stop_after == "synth" else seeds
    chosen = choose(methods, network)
    specs = specifications(network, chosen, fraction)
    if data is not None:
        choose_images(next(iter(specs.values())), 1, data, resize)  # refuses wrong ones at once
    command = repeated(context)
    measurement = plan(
        network,
        board,
        chosen,
        specs,
        seeds,
        images,
        out,
        models,
        command,
        energy,
        data,
        resize,
    )
    follower = Cases(measurement.cases)
    with (
        interruptible(AGAIN),
        alone_in(out),
        workers(jobs, scheduler) as executor,
        follower.bar,
    ):
        follower.run(executor, lambda: measurement.publish(follower.ended))
        if not follower.failed:
            shutil.rmtree(out / "work", ignore_errors=True)
    if follower.failed:
        raise UserError(
            f"{len(follower.failed)} of {len(follower.jobs)} methods failed, "
            f"{follower.failed[0]}; the same command tries them again"
        )
    print(out / f"{NAME}.md")


if __name__ == "__main__":
    main()
