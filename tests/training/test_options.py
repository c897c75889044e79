"""Settings of a training: recipe files, the command that repeats it, the list of methods."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bnnhw import train
from bnnhw.network.spec import NumberFormats, Repair
from bnnhw.nn import checkpoint
from bnnhw.training.options import SETTINGS, given_tables, read_config, settle
from bnnhw.training.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ARGUMENTS = [setting.argument for setting in SETTINGS]


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(train.main, [str(word) for word in words])


def test_the_recorded_command_repeats_the_training(tmp_path):
    words = ["--dataset", "digits", "--depth", 8, "--widths", "4,4,4", "--epochs", 1, "--seed", 9,
             "--residual-fractions", "3,4,5", "--pad", 9, "--stem-activation", "prelu"]  # fmt: skip
    assert invoke(*words, "--out", tmp_path / "a.pt").exit_code == 0
    first = checkpoint.load(tmp_path / "a.pt")
    assert first.spec.formats.residual_fractions == (3, 4, 5)
    assert (first.spec.pad, first.spec.stem_activation) == ((9,), "prelu")
    recorded = first.metrics["command"].removeprefix("python -m bnnhw.train ").split()
    assert invoke(*recorded, "--out", tmp_path / "b.pt").exit_code == 0
    again = checkpoint.load(tmp_path / "b.pt")
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)


def test_a_recipe_file_says_it_all_and_the_command_line_overrides_it(tmp_path):
    (tmp_path / "recipe.toml").write_text("""
        [spec]
        depth = 8
        widths = [4, 4, 6]
        [formats]
        residual_fraction = 7
        [repair]
        optimizer = "sgd"
        double_residual = false
        [recipe]
        dataset = "digits"
        epochs = 1
        batch = 200
        seed = 4
    """)
    out = tmp_path / "m.pt"
    words = ("--config", tmp_path / "recipe.toml", "--out", out)
    assert invoke(*words, "--seed", 5, "--widths", "4,4,4").exit_code == 0
    loaded = checkpoint.load(out)
    assert loaded.spec.depth == 8 and loaded.spec.widths == (4, 4, 4)
    assert loaded.spec.formats == NumberFormats(8, 7)
    assert loaded.spec.repair == Repair(optimizer="sgd", double_residual=False)
    recipe = loaded.metrics["recipe"]
    assert (recipe["epochs"], recipe["batch"], recipe["seed"]) == (1, 200, 5)
    assert (recipe["lr"], recipe["weight_decay"], recipe["flip"]) == (0.1, 1e-4, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recipe", "recipe.toml: not TOML"),
        ("epochs = 3", "recipe.toml: epochs: there are only tables spec, repair, formats, recipe"),
        ("[recipe]\nrate = 3", "recipe.toml: unknown recipe.rate; choose from dataset, epochs"),
        ("[spec]\nrepair = 3", "recipe.toml: unknown spec.repair"),
        ("[recipe]\nepochs = 1.5", "epochs=1.5: must be a whole number"),
        ("[recipe]\nepochs = 1\nlr = 'high'", "lr='high': must be a number"),
        ("[recipe]\nepochs = 1\nflip = 1", "flip=1: must be true or false"),
        ("[recipe]\ndataset = 'mnist'", "dataset='mnist': choose one of"),
        ("[repair]\noptimizer = 'lion'", "optimizer='lion': choose one of 'adam'"),
    ],
)
def test_a_wrong_recipe_file_ends_with_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    result = invoke("--config", path, "--out", tmp_path / "m.pt")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0]


def test_every_repair_method_is_listed_with_its_default_marked():
    result = CliRunner().invoke(train.main, ["--list-repairs"], env=dict(COLUMNS="120"))
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "ede gradient k t (1 - tanh(t x)^2), t from 0.01 to 10 (IR-Net, 1909.10788)" in lines
    assert "on * a shortcut round every convolution (Bi-Real Net, 1808.00278)" in lines
    assert "off a shortcut round every two convolutions (1512.03385)" in lines
    assert "squeeze_excitation= topology" in lines and "optimizer= training only" in lines
    assert "bn-before batch norm before each binarizer (1502.03167) thresholds" in lines
    assert sum(" * " in line for line in lines) == len(dataclasses.fields(Repair))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_ones(path):
    spec, recipe = settle(read_config(path), given_tables(dict.fromkeys(ARGUMENTS), ()))
    assert Recipe(**recipe).settled(spec.repair).dataset == "cifar10"
    assert spec.depth == 20


def test_a_recipe_comes_along():
    assert (RECIPES / "resnet20-cifar10.toml").is_file()
