"""A study: the networks that it trains, and the tables that come of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bnnhw import datasets
from bnnhw.errors import UserError
from bnnhw.jobs.files import read_json, write_text
from bnnhw.network.methods import BASE, Method, combine, combined, isolated, select
from bnnhw.network.repair import BASELINE
from bnnhw.network.spec import NetworkSpec
from bnnhw.studies.experiment import Experiment, versions
from bnnhw.studies.summary import markdown, means, summarise
from bnnhw.training.options import TABLES, read_config, settle
from bnnhw.training.recipe import Recipe

PLANS = ("isolated", "combined")
USUAL: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": dict(spec=dict(depth=20, widths=(16, 32, 64)), recipe=dict(crop=2)),
    "cifar100": dict(spec=dict(depth=18, widths=(64, 128, 256, 512)), recipe=dict(crop=2)),
    "digits": dict(spec=dict(depth=8, widths=(16, 32, 64)), recipe=dict(crop=1)),
}
EPOCHS = 30


@dataclass(frozen=True)
class Study:
    """What all runs share.

    spec : the baseline's. recipe : the recipe of seed 0, not settled.
    images, validation : how many images of each split are used.
    out, models : where results and models go.
    digest : of own images, else None.
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
    digest: str | None = None

    def path(self, plan: str, suffix: str) -> Path:
        return self.out / f"study-{plan}-{self.recipe.dataset}{suffix}"

    def experiments(self, methods: Sequence[Method]) -> list[Experiment]:
        """Returns all runs, one seed of every method before the next seed."""
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
            self.digest,
        )  # fmt: skip

    def methods(
        self, only: Sequence[str], margin: float, leave_one_out: bool
    ) -> tuple[list[Method], list[Method], dict[str, Any]]:
        """Returns the methods to train, those whose teacher is missing, and the choice made."""
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
        """Returns the file of the isolated study, and the accuracies of the methods that count."""
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
    dataset: str | None,
    config: Path | None,
    given: dict[str, dict[str, Any]],
    data: str | None = None,
) -> tuple[NetworkSpec, Recipe]:
    """Returns the baseline's network and recipe.

    They are the data set's usual ones, changed by a recipe file and by the tables `given`. A None
    there counts as not given. data : --data, which says what data set it is unless `dataset` does.
    """
    file = {} if config is None else read_config(config)
    if "repair" in file:
        raise UserError(f"{config}: table repair: the study chooses the methods itself")
    prefer = file.get("recipe", {}).get("dataset")
    named = datasets.find(data, dataset, prefer).name
    usual = {name: USUAL.get(named, {}).get(name, {}) | file.get(name, {}) for name in TABLES}
    usual["recipe"].setdefault("epochs", EPOCHS)
    told: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for name, table in given.items():
        told[name] = {key: value for key, value in table.items() if value is not None}
    told["recipe"]["dataset"] = named
    told["repair"] = asdict(BASELINE)
    spec, fields = settle(usual, told, data)
    recipe = Recipe(**fields)
    if recipe.all_images:
        raise UserError(f"{config}: all_images: the study compares by images that are held out")
    return spec, recipe
