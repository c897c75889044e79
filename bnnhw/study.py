"""python -m bnnhw.study: train every repair method alone, then the best of them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from bnnhw import datasets
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.jobs.files import read_json, write_text
from bnnhw.jobs.pool import AGAIN, workers
from bnnhw.network.methods import BASE, Method, combine, combined, isolated, select
from bnnhw.network.repair import BASELINE
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.teachers import read_teacher
from bnnhw.studies.experiment import Experiment, versions
from bnnhw.studies.runs import Runs
from bnnhw.studies.summary import markdown, means, summarise
from bnnhw.training.journal import interruptible
from bnnhw.training.options import TABLES, numbers, read_config, settle
from bnnhw.training.recipe import Recipe

PLANS = ("isolated", "combined")
USUAL: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": dict(spec=dict(depth=20, widths=(16, 32, 64)), recipe=dict(crop=2)),
    "cifar100": dict(spec=dict(depth=18, widths=(64, 128, 256, 512)), recipe=dict(crop=2)),
    "digits": dict(spec=dict(depth=8, widths=(16, 32, 64)), recipe=dict(crop=1)),
}
EPOCHS = 30
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True)
class Study:
    """What all runs share. spec : the baseline's. recipe : of seed 0, not settled.

    images, validation : how many images of both splits are used.
    out, models : where results and models go.
    """

    plan: str
    spec: NetworkSpec
    recipe: Recipe
    seeds: int
    images: int
    validation: int
    directory: str | None
    teacher: str | None
    out: Path
    models: Path

    def path(self, plan: str, suffix: str) -> Path:
        return self.out / f"study-{plan}-{self.recipe.dataset}{suffix}"

    def experiments(self, methods: Sequence[Method]) -> list[Experiment]:
        """All runs, one seed of every method before the next."""
        return [
            self._experiment(method, replace(self.recipe, seed=seed))
            for seed in range(self.seeds)
            for method in methods
        ]

    def _experiment(self, method: Method, recipe: Recipe) -> Experiment:
        spec = replace(self.spec, repair=method.repair)
        taught = spec.repair.teacher_student != "none"
        return Experiment(
            method.name, method.settings, spec, recipe.settled(spec.repair), self.images,
            self.directory, self.teacher if taught else None, self.out / "runs", self.models,
        )  # fmt: skip

    def methods(
        self, only: Sequence[str], margin: float, leave_one_out: bool
    ) -> tuple[list[Method], list[Method], dict[str, Any]]:
        """Those to train, those that need a teacher which is not there, and the choice made."""
        choice: dict[str, Any] = {}
        if self.plan == "isolated":
            wanted = self._chosen(only)
        else:
            source, accuracy = self._isolated(only)
            found = combine(accuracy, margin)
            wanted = list(combined(found, leave_one_out))
            choice = dict(choice=asdict(found) | dict(source=source.name, margin=margin))
        ready = [m for m in wanted if self.teacher or m.repair.teacher_student == "none"]
        return ready, [method for method in wanted if method not in ready], choice

    @staticmethod
    def _chosen(only: Sequence[str]) -> list[Method]:
        return select(isolated(), only, "--only {}") if only else list(isolated())

    def _isolated(self, only: Sequence[str]) -> tuple[Path, dict[str, float]]:
        """The file of the isolated study and the accuracies in it of the methods that count."""
        source = self.path("isolated", ".json")
        if not source.exists():
            raise UserError(f"{source}: not there; run --plan isolated with the same --out first")
        accuracy = means(read_json(source)["methods"])
        if BASE.name not in accuracy:
            raise UserError(f"{source}: the baseline has no integer accuracy to compare with")
        names = {method.name for method in self._chosen(only)}
        return source, {name: value for name, value in accuracy.items() if name in names}

    def publish(
        self, experiments: Sequence[Experiment], missing: Sequence[Method], choice: dict[str, Any]
    ) -> None:
        """Write study-PLAN-DATASET.json and .md of all runs that have ended."""
        runs = [run for run in (experiment.result() for experiment in experiments) if run]
        content = dict(
            plan=self.plan, dataset=self.recipe.dataset, depth=self.spec.depth,
            widths=self.spec.widths, epochs=self.recipe.epochs, batch=self.recipe.batch,
            seeds=self.seeds, split="validation", train_images=self.images,
            validation_images=self.validation, versions=versions(), methods=summarise(runs),
            **choice, not_run=[dict(method=m.name, reason="needs --teacher") for m in missing],
            runs=runs,
        )  # fmt: skip
        write_text(self.path(self.plan, ".json"), json.dumps(content, indent=2) + "\n")
        write_text(self.path(self.plan, ".md"), markdown(content))


def base(
    dataset: str | None, config: Path | None, given: dict[str, dict[str, Any]]
) -> tuple[NetworkSpec, Recipe]:
    """The baseline's network and recipe: the data set's usual ones, changed by a recipe file and
    by the tables `given`, where None is not given."""
    file = {} if config is None else read_config(config)
    if "repair" in file:
        raise UserError(f"{config}: table repair: the study chooses the methods itself")
    dataset = dataset or file.get("recipe", {}).get("dataset", Recipe.dataset)
    usual = {name: USUAL.get(dataset, {}).get(name, {}) | file.get(name, {}) for name in TABLES}
    usual["recipe"].setdefault("epochs", EPOCHS)
    told: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for name, table in given.items():
        told[name] = {key: value for key, value in table.items() if value is not None}
    told["recipe"]["dataset"] = dataset
    told["repair"] = asdict(BASELINE)
    spec, fields = settle(usual, told)
    recipe = Recipe(**fields)
    if recipe.all_images:
        raise UserError(f"{config}: all_images: the study compares by images that are held out")
    return spec, recipe


@click.command(cls=Command)
@click.option("--plan", type=click.Choice(PLANS), required=True)
@click.option("--dataset", type=click.Choice(datasets.DATASETS), help="[default: cifar10]")
@click.option("--data", "directory", help="Directory of the data set (digits need none).")
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
    plan: str, dataset: str | None, directory: str | None, config: Path | None, depth: int | None,
    widths: str | None, epochs: int | None, batch: int | None, images: int | None, seeds: int,
    teacher: str | None, only: tuple[str, ...], margin: float, leave_one_out: bool,
    out: Path, models: Path | None, jobs: int, scheduler: str | None,
) -> None:  # fmt: skip
    """Train the networks of a plan; what an earlier call has done is not done again."""
    shape = dict(depth=depth, widths=numbers("--widths", widths, ",") if widths else None)
    spec, recipe = base(dataset, config, dict(spec=shape, recipe=dict(epochs=epochs, batch=batch)))
    there, held = (
        len(datasets.load(recipe.dataset, directory, split)) for split in ("train", "validation")
    )
    study = Study(
        plan, spec, recipe, seeds, min(images or there, there), held, _absolute(directory),
        _absolute(teacher), out.resolve(), (models or out / "models").resolve(),
    )  # fmt: skip
    methods, missing, choice = study.methods(only, margin, leave_one_out)
    experiments = study.experiments(methods)
    for experiment in experiments:
        if experiment.teacher:
            read_teacher(experiment.teacher, experiment.spec)
    follower = Runs(experiments)
    with interruptible(AGAIN), workers(jobs, scheduler) as executor, follower.bar:
        follower.run(executor, lambda: study.publish(experiments, missing, choice))
    study.publish(experiments, missing, choice)
    click.echo(study.path(plan, ".md"))
    if follower.failed:
        raise UserError(
            f"{len(follower.failed)} of {len(experiments)} runs failed, {follower.failed[0]}; "
            f"the same command tries them again"
        )


def _absolute(path: str | None) -> str | None:
    """The same file or directory for a worker that runs elsewhere."""
    return None if path is None else str(Path(path).resolve())


if __name__ == "__main__":
    main()
