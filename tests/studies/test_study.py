"""The study: which networks it trains, what it keeps, and what it says of them."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import datasets, study
from bnnhw.errors import UserError
from bnnhw.jobs import pool
from bnnhw.network.methods import BASE, combine, combined, isolated
from bnnhw.network.repair import BASELINE, CATEGORIES
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.nn.teacher import Teacher
from bnnhw.studies import experiment, runs
from bnnhw.studies.summary import markdown, means, spread, summarise
from bnnhw.training.inference import classify
from bnnhw.training.recipe import Recipe
from tests.jobs.executors import Here

RESULTS = Path(__file__).parents[2] / "results"
TINY = ("--dataset", "digits", "--widths", "4,4,4", "--epochs", 1, "--seeds", 1, "--images", 96,
        "--batch", 32)  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    @contextmanager
    def one(jobs, scheduler):
        yield Here()

    monkeypatch.setattr(study, "workers", one)


@pytest.fixture(autouse=True)
def alone(monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def invoke(plan, out, *words):
    arguments = ["--plan", plan, *TINY, "--out", out, *words]
    return CliRunner().invoke(study.main, [str(word) for word in arguments])


def read(out, plan):
    return json.loads((out / f"study-{plan}-digits.json").read_text())


def test_isolated_has_every_value_that_is_not_the_baselines():
    methods = isolated()
    assert methods[0].repair == BASELINE and len({m.name for m in methods}) == len(methods)
    found = {(m.category, m.settings[m.category]) for m in methods[1:]}
    assert found == {
        (category.name, value)
        for category in CATEGORIES
        for value in category.values
        if value != asdict(BASELINE)[category.name]
    }
    together = {m.name: m.settings for m in methods if len(m.settings) > 1}
    assert together == {
        "activation_position=before-add": dict(activation_position="before-add",
                                               activation="rprelu"),
    }  # fmt: skip
    assert {m.name for m in methods} >= {"double_residual=on", "ensemble=weights-2"}
    for method in methods:
        assert method.repair.changes() == method.settings


def test_the_best_of_each_category_that_beats_the_baseline():
    accuracy = {
        "baseline": 80.0, "double_residual=on": 83.0, "feature_binarizer=ede": 81.0,
        "feature_binarizer=rsign": 82.0, "padding=minus-one": 79.0, "scaling=spatial": 80.0,
    }  # fmt: skip
    choice = combine(accuracy)
    assert choice.taken == ("double_residual=on", "feature_binarizer=rsign")
    assert choice.settings == dict(double_residual=True, feature_binarizer="rsign")
    assert not choice.dropped
    assert [m.name for m in combined(choice, False)] == ["baseline", "combined"]
    left = {m.name: m.settings for m in combined(choice, True)[2:]}
    assert left == {
        "combined without double_residual=on": dict(feature_binarizer="rsign"),
        "combined without feature_binarizer=rsign": dict(double_residual=True),
    }
    assert combine(accuracy, margin=2.0).taken == ("double_residual=on",)
    assert combine({"baseline": 80.0}).settings == {}


def test_what_cannot_be_had_together_is_dropped_with_the_reason():
    choice = combine({"baseline": 1.0, "binary_sets=adabin": 3.0, "ensemble=weights-2": 2.0})
    assert choice.taken == ("binary_sets=adabin",)
    assert "ensemble must be none" in choice.dropped["ensemble=weights-2"]


@pytest.mark.parametrize(
    ("prelu", "rprelu", "before", "taken", "dropped"),
    [
        (2.0, 3.0, 2.5, ["activation=rprelu"], []),
        (2.0, 3.0, 3.5, ["activation_position=before-add", "activation=rprelu"], []),
        (4.0, 3.0, 3.5, ["activation=prelu"], ["activation_position=before-add"]),
        (4.0, 3.0, 4.5, ["activation_position=before-add"], ["activation=prelu"]),
    ],
)
def test_a_position_must_beat_its_companion_alone(prelu, rprelu, before, taken, dropped):
    accuracy = {"baseline": 1.0, "activation=prelu": prelu, "activation=rprelu": rprelu}
    choice = combine({**accuracy, "activation_position=before-add": before})
    assert list(choice.taken) == taken and list(choice.dropped) == dropped


def run_of(method, integer, real, **settings):
    return dict(method=method, settings=settings, integer=integer, float=real,
                integer_refused=None if integer is not None else "too wide")  # fmt: skip


def test_the_table_has_mean_range_and_difference():
    assert spread([90.0, 91.0, 93.5]) == dict(mean=91.5, min=90.0, max=93.5, runs=3)
    assert spread([None]) is None
    methods = summarise([
        run_of("baseline", 80.0, 81.0), run_of("stem=thermometer", None, 90.0),
        run_of("baseline", 82.0, 82.5), run_of("padding=minus-one", 79.5, 80.0),
    ])  # fmt: skip
    assert means(methods) == {"baseline": 81.0, "padding=minus-one": 79.5}
    text = markdown(dict(
        plan="isolated", dataset="cifar10", depth=20, widths=[16, 32, 64], epochs=30, batch=64,
        train_images=45000, validation_images=5000, methods=methods,
        not_run=[dict(method="teacher_student=logits", reason="needs --teacher")],
    ))  # fmt: skip
    lines = text.splitlines()
    assert "| baseline | 81.00 (80.00 to 82.00) |  | 81.75 (81.00 to 82.50) | 2 |" in lines
    assert "| stem=thermometer | - | - | 90.00 | 1 |" in lines
    assert "| padding=minus-one | 79.50 | -1.50 | 80.00 | 1 |" in lines
    assert "- stem=thermometer: no integer network: too wide" in lines
    assert "- teacher_student=logits: needs --teacher" in lines
    assert "ResNet-20 (16/32/64)" in text and "the first 45000" in text


def test_both_plans_from_the_command_line(tmp_path, here):
    chosen = ("--only", "double_residual", "--only", "teacher_student", "--seeds", 2)
    result = invoke("isolated", tmp_path, *chosen)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'study-isolated-digits.md'}\n"
    isolated_study = read(tmp_path, "isolated")
    runs = isolated_study["runs"]
    assert [(run["method"], run["seed"]) for run in runs] == [
        ("baseline", 0), ("double_residual=on", 0), ("baseline", 1), ("double_residual=on", 1)
    ]  # fmt: skip
    assert [entry["method"] for entry in isolated_study["not_run"]] == [
        "teacher_student=logits", "teacher_student=attention"
    ]  # fmt: skip
    for run in runs:
        assert run["split"] == "validation" and run["validation_images"] == 180
        assert run["train_images"] == 96 and run["epochs"] == 1 and run["versions"]["torch"]
        assert run["recipe"]["lr"] == 0.01 and run["recipe"]["seed"] == run["seed"]
        assert run["spec"]["repair"]["double_residual"] == (run["method"] != "baseline")
        assert_accuracies_are_the_models(run, tmp_path / "models" / run["model"])
    result = invoke("combined", tmp_path, "--seeds", 2)
    assert result.exit_code == 0, result.output
    together = read(tmp_path, "combined")
    table = means(isolated_study["methods"])
    gained = table["double_residual=on"] > table["baseline"]
    assert together["choice"]["taken"] == (["double_residual=on"] if gained else [])
    assert [row["method"] for row in together["methods"]] == ["baseline", "combined"]
    assert together["methods"][0] == isolated_study["methods"][0]  # not trained again
    assert invoke("combined", tmp_path, "--seeds", 2, "--only", "padding").exit_code == 0
    assert read(tmp_path, "combined")["choice"]["taken"] == []
    assert invoke("combined", tmp_path, "--seeds", 2, "--margin", -99).exit_code == 0
    together = read(tmp_path, "combined")
    assert together["choice"]["taken"] == ["double_residual=on"]
    assert together["methods"][1]["integer"] == isolated_study["methods"][1]["integer"]


def assert_accuracies_are_the_models(run, path):
    loaded = checkpoint.load(path)
    images = datasets.load("digits", split="validation")
    found = classify(loaded.model(), images.pixels) == images.labels
    assert run["float"] == round(100 * float(np.mean(found)), 2)
    network = experiment.lower(loaded)
    exact = experiment.golden.run(network, images.pixels)["class"] == images.labels
    assert run["integer"] == round(100 * float(np.mean(exact)), 2)


def test_what_is_done_is_not_done_again_unless_asked_differently(tmp_path, here, monkeypatch):
    assert invoke("isolated", tmp_path, "--only", "padding").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    called = []
    monkeypatch.setattr(runs, "perform", lambda run: called.append(run.method))
    again = invoke("isolated", tmp_path, "--only", "padding")
    assert again.exit_code == 0 and not called and len(before) == 2
    assert "2 runs, 0 of them still to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before
    other = invoke("isolated", tmp_path, "--only", "padding", "--images", 97)
    assert called == ["baseline", "padding=minus-one"] and other.exit_code == 2  # it did nothing


def one_experiment(folder, epochs=2):
    given = dict(spec=dict(widths=(4, 4, 4)), recipe=dict(epochs=epochs, batch=32))
    spec, recipe = study.base("digits", None, given)
    return experiment.Experiment(
        BASE.name, {}, spec, recipe.settled(spec.repair), 96, None, None, folder / "runs",
        folder / "models",
    )  # fmt: skip


def test_a_broken_run_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    whole, parts = one_experiment(tmp_path / "whole"), one_experiment(tmp_path / "parts")
    experiment.perform(whole)
    tell = experiment.Lines.__call__

    def break_off(lines, entry):
        if entry.get("epoch") == 2:
            raise KeyboardInterrupt
        tell(lines, entry)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment.Lines, "__call__", break_off)
        experiment.perform(parts)
    assert parts.result() is None and experiment.epochs_done(parts) == 1
    experiment.perform(parts)
    assert experiment.epochs_done(parts) == 2
    states = [checkpoint.load(run.model_path).state for run in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    timeless = [{**run.result(), "seconds": 0, "model_sha256": ""} for run in (whole, parts)]
    assert timeless[0] == timeless[1]
    assert not [*tmp_path.rglob("*.state"), *tmp_path.rglob("*.part")]


def test_a_network_that_no_device_can_run_has_the_reason(tmp_path, monkeypatch):
    def refuse(model):
        raise UserError("conv1: its scale needs 20 bits")

    monkeypatch.setattr(experiment, "lower", refuse)
    run = one_experiment(tmp_path, epochs=1)
    experiment.perform(run)
    result = run.result()
    assert result["integer"] is None and result["float"] > 0
    assert result["integer_refused"] == "conv1: its scale needs 20 bits"


def test_a_failed_run_ends_with_one_line_and_the_others_are_kept(tmp_path, here, monkeypatch):
    def perform(run):
        if run.method != "baseline":
            raise RuntimeError("out of\nmemory")
        experiment.perform(run)

    monkeypatch.setattr(runs, "perform", perform)
    result = invoke("isolated", tmp_path, "--only", "padding")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "1 of 2 runs failed, padding=minus-one, seed 0: RuntimeError: out of memory" in line
    assert [run["method"] for run in read(tmp_path, "isolated")["runs"]] == ["baseline"]


def test_an_interrupted_study_goes_on_with_the_same_command(tmp_path, here, monkeypatch):
    def stop(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "perform", stop)
        result = invoke("isolated", tmp_path, "--only", "padding")
    assert result.exit_code == 130
    assert result.stderr.endswith("interrupted; the same command goes on where it stopped\n")
    assert invoke("isolated", tmp_path, "--only", "padding").exit_code == 0


def test_processes_of_this_machine(tmp_path):
    result = invoke("isolated", tmp_path, "--only", "padding")
    assert result.exit_code == 0, result.output
    assert len(read(tmp_path, "isolated")["runs"]) == 2
    assert "padding=minus-one, seed 0: validation" in result.stderr


def test_workers_of_a_dask_cluster(tmp_path):
    from distributed import LocalCluster

    settings = dict(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with LocalCluster(**settings) as cluster:
        result = invoke("isolated", tmp_path, "--only", "padding", "--scheduler",
                        cluster.scheduler_address)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(read(tmp_path, "isolated")["runs"]) == 2


def test_without_dask_or_its_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    result = invoke("isolated", tmp_path, "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "error: --scheduler tcp://127.0.0.1:1: no Dask scheduler answers" in result.stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = invoke("isolated", tmp_path, "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "error: --scheduler: dask.distributed is not installed; pip install" in result.stderr


def test_a_teacher_is_used_where_it_is_needed(tmp_path, here):
    file = tmp_path / "teacher.pt"
    torch.manual_seed(0)
    torch.save(Teacher(1, (4, 4, 4), 10, 1).content(), file)
    chosen = ("--only", "teacher_student", "--teacher", file)
    result = invoke("isolated", tmp_path, *chosen)
    assert result.exit_code == 0, result.output
    content = read(tmp_path, "isolated")
    assert not content["not_run"] and len(content["runs"]) == 3
    assert [run["recipe"]["distil"] > 0 for run in content["runs"]] == [False, True, True]
    assert [run["teacher"] for run in content["runs"]] == [None, "teacher.pt", "teacher.pt"]
    torch.save(Teacher(1, (4, 4), 10, 1).content(), file)
    result = invoke("isolated", tmp_path, *chosen)
    assert result.exit_code == 2
    assert "teacher.pt: the teacher has 2 stages, the network 3" in result.stderr


def test_a_recipe_file_is_for_all(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("[formats]\nresidual_width = 10\n[recipe]\nlr = 0.003\nepochs = 7\n")
    spec, recipe = study.base("cifar100", file, dict(spec=dict(depth=None), recipe={}))
    assert (spec.depth, spec.widths, spec.classes) == (18, (64, 128, 256, 512), 100)
    assert spec.repair == BASELINE and spec.formats.residual_width == 10
    assert (recipe.lr, recipe.epochs, recipe.flip, recipe.dataset) == (0.003, 7, True, "cifar100")
    assert study.base("cifar10", file, dict(recipe=dict(epochs=9)))[1].epochs == 9
    file.write_text("[repair]\nstem = 'thermometer'\n")
    with pytest.raises(UserError, match="table repair: the study chooses the methods itself"):
        study.base("digits", file, {})
    file.write_text("[recipe]\nall_images = true\n")
    with pytest.raises(UserError, match="recipe.toml: all_images: the study compares by images"):
        study.base("digits", file, {})


@pytest.mark.parametrize(
    ("plan", "words", "message"),
    [
        ("isolated", ["--only", "dropout"], "--only dropout: no such method"),
        ("isolated", ["--widths", "4;4"], "--widths 4;4: give whole numbers"),
        ("isolated", ["--batch", 0], "batch=0: must be greater than 0"),
        ("isolated", ["--teacher", "no.pt"], "no.pt: No such file"),
        ("isolated", ["--dataset", "cifar10"], "no data: give --data"),
        ("combined", [], "study-isolated-digits.json: not there; run --plan isolated"),
    ],
)
def test_wrong_options_end_with_one_line(tmp_path, plan, words, message):
    result = invoke(plan, tmp_path, *words)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


def test_the_results_that_are_kept_are_found_under_their_names():
    """So the same command goes on where they end, whatever settings there are by now."""
    runs = [path for path in RESULTS.glob("runs/*.json") if "teacher_student" not in path.name]
    assert len(runs) > 30
    for path in runs:
        run = json.loads(path.read_text())
        spec, recipe = NetworkSpec.from_dict(run["spec"]), Recipe(**run["recipe"])
        asked = experiment.Experiment(
            run["method"], run["settings"], spec, recipe, run["train_images"], None, None,
            path.parent, path.parent,
        )  # fmt: skip
        assert asked.result_path == path and spec.to_dict() == run["spec"]
