"""python -m bnnhw.study: train every repair method alone, then the best of them together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from bnnhw import datasets
from bnnhw.cli import DATA, Command, interruptible, numbers
from bnnhw.errors import UserError
from bnnhw.jobs.locks import alone_in
from bnnhw.jobs.pool import AGAIN, workers
from bnnhw.nn.teachers import read_teacher
from bnnhw.studies.runs import Runs
from bnnhw.studies.study import EPOCHS, PLANS, Study, base

DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(cls=Command)
@click.option("--plan", type=click.Choice(PLANS), required=True)
@click.option("--dataset", type=click.Choice(datasets.DATASETS), help="[default: cifar10]")
@click.option("--data", "directory", help=DATA)
@click.option("--input", "size", help="HEIGHTxWIDTHxCHANNELS; the data set's if not given.")
@click.option("--resize", is_flag=True, help="Resize the images to --input.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Recipe file (TOML) for all: tables spec, formats, recipe.",
)
@click.option("--depth", type=int, help="[default: 20, of CIFAR-100 18, of digits 8]")
@click.option("--widths", help="Channels per stage, such as 16,32,64.")
@click.option("--epochs", type=int, help=f"[default: {EPOCHS}]")
@click.option("--batch", type=int, help="Images per step. [default: 64]")
@click.option("--images", type=click.IntRange(1), help="Only the first so many training images.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--teacher", help="What teacher_student learns from: a file of bnnhw.teach.")
@click.option("--only", multiple=True, metavar="METHOD[=VALUE]", help="Try no others.")
@click.option("--margin", default=0.0, help="Combined: take what gains more points than this.")
@click.option("--leave-one-out", is_flag=True, help="Combined: also without each method in it.")
@click.option("--out", type=DIRECTORY, default="results", show_default=True)
@click.option("--models", type=DIRECTORY, help="Where models go. [default: OUT/models]")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs at a time on this machine.",
)
@click.option("--scheduler", help="Address of a Dask scheduler whose workers do the runs.")
def main(
    plan: str, dataset: str | None, directory: str | None, size: str | None,
    resize: bool, config: Path | None, depth: int | None,
    widths: str | None, epochs: int | None, batch: int | None, images: int | None, seeds: int,
    teacher: str | None, only: tuple[str, ...], margin: float, leave_one_out: bool,
    out: Path, models: Path | None, jobs: int, scheduler: str | None,
) -> None:  # fmt: skip
    """Train the networks of a plan; what an earlier call has done is not done again."""
    shape = dict(
        depth=depth,
        widths=numbers("--widths", widths, ",") if widths else None,
        input=numbers("--input", size, "x") if size else None,
    )
    fields = dict(epochs=epochs, batch=batch, resize=resize or None)
    spec, recipe = base(dataset, config, dict(spec=shape, recipe=fields), directory)
    source = datasets.find(directory, recipe.dataset)
    train, validation = (
        source.fitting(split, spec.input, spec.classes, resize=recipe.resize)
        for split in ("train", "validation")
    )
    own = source.name not in datasets.DATASETS
    study = Study(
        plan, spec, recipe, seeds, min(images or len(train), len(train)), len(validation),
        _absolute(directory),
        _absolute(teacher), out.resolve(), (models or out / "models").resolve(),
        (train + validation).digest() if own else None,
    )  # fmt: skip
    methods, missing, choice = study.methods(only, margin, leave_one_out)
    experiments = study.experiments(methods)
    for experiment in experiments:
        if experiment.teacher:
            read_teacher(experiment.teacher, experiment.spec)
    follower = Runs(experiments)
    with interruptible(AGAIN), ExitStack() as stack:
        for folder, option in {study.out: "--out", study.models: "--models"}.items():
            stack.enter_context(alone_in(folder, option))
        executor = stack.enter_context(workers(jobs, scheduler))
        stack.enter_context(follower.bar)
        follower.run(executor, lambda: study.publish(experiments, missing, choice))
        study.publish(experiments, missing, choice)
    print(study.path(plan, ".md"))
    if follower.failed:
        raise UserError(
            f"{len(follower.failed)} of {len(experiments)} runs failed, {follower.failed[0]}; "
            f"the same command tries them again"
        )


def _absolute(path: str | None) -> str | None:
    """Returns the same file or directory for a worker that runs elsewhere."""
    if path is None or (path in datasets.DATASETS and not Path(path).exists()):
        return path
    return str(Path(path).resolve())


if __name__ == "__main__":
    main()
