"""Training: it learns, resumes exactly, and its command line explains what is wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import datasets, train
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import checkpoint
from bnnhw.training.batches import Batches
from bnnhw.training.recipe import Recipe
from bnnhw.training.trainer import classify

SPEC = NetworkSpec(depth=8, widths=(8, 8, 16), input=(8, 8, 1))


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(train.main, [str(word) for word in words])


class _Stop(Exception):
    pass


def test_resumed_training_equals_uninterrupted(tmp_path):
    recipe = Recipe("digits", epochs=3, batch=64, crop=1, flip=False, seed=3, exact_epochs=2)
    epochs = []

    def interrupt(entry):
        epochs.append(entry.get("epoch"))
        if entry.get("epoch") == 2:
            raise _Stop  # before epoch 2 is kept: it is run again

    train.train(SPEC, recipe, None, tmp_path / "whole.pt")
    with pytest.raises(_Stop):
        train.train(SPEC, recipe, None, tmp_path / "parts.pt", log=interrupt)
    assert checkpoint.load(tmp_path / "parts.pt").metrics["epochs"] == 1
    train.train(SPEC, recipe, None, tmp_path / "parts.pt", resume=True)
    whole, parts = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert whole.metrics["epochs"] == parts.metrics["epochs"] == 3
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, parts.state[name]), name
    left = sorted(entry.name for entry in tmp_path.iterdir())
    files = ("", ".log.jsonl", ".state")
    assert left == [f"{name}.pt{file}" for name in ("parts", "whole") for file in files]
    lines = [(tmp_path / f"{name}.pt.log.jsonl").read_text() for name in ("whole", "parts")]
    whole, parts = ([json.loads(line) for line in text.splitlines()] for text in lines)
    assert [line["epoch"] for line in parts] == [1, 2, 3]
    assert [line["loss"] for line in parts] == [line["loss"] for line in whole]


def test_a_log_that_cannot_be_written_is_told_of_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = Recipe("cifar10", epochs=1)
    with pytest.raises(UserError, match="needs the package tensorboard"):
        train.train(SPEC, recipe, "nowhere", tmp_path / "net.pt", board=tmp_path / "curves")


@pytest.mark.parametrize("repair", [Repair("rsign", False, "minus-one"), Repair()],
                         ids=["rsign", "default"])  # fmt: skip
def test_a_few_epochs_learn_digits_and_lower_well(tmp_path, repair):
    spec = NetworkSpec(depth=8, widths=(16, 16, 32), input=(8, 8, 1), repair=repair)
    recipe = Recipe("digits", epochs=8, batch=32, crop=0, flip=False)
    trainer = train.train(spec, recipe, None, tmp_path / "model.pt")
    images = datasets.load("digits")
    found = classify(trainer.model, images.pixels)
    assert (found == images.labels).mean() > 0.8
    from bnnhw import golden

    exact = golden.run(lower(trainer.model), images.pixels)["class"]
    assert (exact == found).mean() > 0.9
    assert abs((exact == images.labels).mean() - (found == images.labels).mean()) < 0.03


def test_batches_shift_mirror_and_cover_every_image_once():
    images = datasets.load("digits", split="validation")
    batches = Batches(images, Recipe(epochs=1, batch=30, crop=0, flip=False), torch.device("cpu"))
    seen = torch.cat([batch.pixels for batch in batches.epoch(torch.Generator())])
    assert seen.shape == (180, 1, 8, 8) and seen.dtype == torch.uint8
    ordered = sorted(map(bytes, images.pixels.reshape(180, -1)))
    assert sorted(map(bytes, seen.numpy().reshape(180, -1))) == ordered
    moved = Batches(images, Recipe(epochs=1, batch=180, crop=2), torch.device("cpu"))
    (batch,) = moved.epoch(torch.Generator().manual_seed(0))
    originals = [torch.from_numpy(image[..., 0]) for image in images.pixels]
    for image, label in zip(batch.pixels[:20, 0], batch.labels[:20], strict=True):
        assert any(
            int(label) == images.labels[at] and _is_shift(original, image)
            for at, original in enumerate(originals)
        )


def _is_shift(original: torch.Tensor, image: torch.Tensor) -> bool:
    framed = torch.nn.functional.pad(original, (2, 2, 2, 2), value=128)
    shifts = [framed[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    return any(torch.equal(image, s) or torch.equal(image, s.flip(1)) for s in shifts)


def test_untrained_from_the_command_line(tmp_path):
    out = tmp_path / "r.pt"
    result = invoke("--epochs", 0, "--depth", 14, "--widths", "16,32,48", "--classes", 7,
                    "--input", "24x24x1", "--repair", "double_residual=off",
                    "--repair", "feature_binarizer=rsign", "--seed", 1, "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    loaded = checkpoint.load(out)
    assert loaded.spec == NetworkSpec(14, (16, 32, 48), (24, 24, 1), 7, Repair("rsign", False))
    assert lower(loaded).spec.repair == loaded.spec.repair


def test_a_compiled_network_trains_and_a_machine_that_cannot_is_one_line(monkeypatch):
    words = ("--dataset", "digits", "--depth", 8, "--widths", "2,2,2", "--batch", 8, "--compile")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: lambda *x: compiled.append(f) or f(*x))
    assert json.loads(invoke(*words, "--benchmark", 0.1).stdout)["compiled"]
    assert len(compiled) >= 7 and set(map(lambda f: f.__name__, compiled)) == {"stages"}

    def fail(*x):
        raise torch._dynamo.exc.BackendCompilerFailed(compile, RuntimeError("no C++"), None)

    monkeypatch.setattr(torch, "compile", lambda f: fail)
    result = invoke(*words, "--benchmark", 0.1)
    assert result.exit_code == 2 and "error: --compile: torch cannot compile here" in result.stderr


def test_the_speed_is_measured_without_a_data_set():
    words = ("--dataset", "cifar100", "--depth", 8, "--widths", "2,2,2", "--batch", 8)
    result = invoke(*words, "--benchmark", 0.1, "--repair", "teacher_student=attention")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images_per_second"] > 0 and found["batch"] == 8 and found["processes"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0", "--depth", "9"], "error: depth=9: must be 6n+2"),
        (["--epochs", "0", "--widths", "16;32"], "error: --widths 16;32: give whole numbers"),
        (["--epochs", "0", "--input", "24x24"], "error: input=(24, 24): give height x width"),
        (["--epochs", "0", "--repair", "double_residual"], "give NAME=VALUE"),
        (["--epochs", "0", "--repair", "se=4"], "error: --repair se=4: give NAME=VALUE with NAME"),
        (["--epochs", "0", "--repair", "double_residual=1"], "double_residual is on or off"),
        (["--epochs", "0", "--repair", "padding=same"], "choose one of 'zero', 'minus-one'"),
        (["--dataset", "digits"], "give --epochs, --budget-minutes or both"),
        (["--epochs", "1"], "error: no data: give --data"),
        (
            ["--dataset", "digits", "--epochs", "1", "--classes", "7"],
            "digits: has 10 classes, the network 7",
        ),
        (["--dataset", "digits", "--epochs", "1", "--batch", "5000"], "1257 training images"),
        (["--dataset", "digits", "--epochs", "1", "--lr", "0"], "error: lr=0.0: must be greater"),
        (["--dataset", "digits", "--epochs", "-1"], "error: epochs=-1: must be greater than 0"),
        (["--dataset", "digits", "--epochs", "1", "--crop", "-1"], "error: crop=-1"),
        (["--dataset", "digits", "--epochs", "1", "--resume"], "r.pt.state: No such file"),
        (["--dataset", "digits", "--epochs", "1", "--distil", "2"], "distil=2.0: must lie in 0"),
        (["--dataset", "digits", "--epochs", "1", "--distil", "0.5"], "there is no teacher"),
        (["--dataset", "digits", "--epochs", "1", "--penalty", "1"], "there is no regularization"),
        (
            ["--dataset", "digits", "--epochs", "1", "--repair", "teacher_student=logits"],
            "teacher_student=logits: give --teacher",
        ),
        (["--dataset", "digits", "--epochs", "1", "--warm-up", "2"], "warm_up=2.0: must lie in 0"),
        (["--dataset", "digits", "--epochs", "1", "--weight-decay", "-1"], "must not be negative"),
        (["--dataset", "digits", "--epochs", "1", "--exact-epochs", "2"], "give --epochs with at"),
        (["--dataset", "digits", "--epochs", "1", "--residual-width", "7"], "number from 8 to 16"),
        (["--config", "no.toml"], "no.toml: No such file"),
        (["--dataset", "digits", "--epochs", "1", "--start", "no.pt"], "no.pt: No such file"),
        (
            ["--dataset", "digits", "--epochs", "1", "--depth", "14", "--start", "resnet8-digits"],
            "its network is NetworkSpec(depth=8",
        ),
        (["--dataset", "digits", "--epochs", "1", "--teacher", "no.pt"], "no.pt: No such file"),
    ],
)
def test_wrong_options_end_with_one_line(tmp_path, words, message):
    result = invoke(*words, "--out", tmp_path / "r.pt")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "r.pt").exists()


def test_a_start_is_taken_over_and_recorded(tmp_path):
    recipe = Recipe("digits", epochs=1, batch=64, crop=0, flip=False, lr=1e-6)
    spec = NetworkSpec(depth=8, input=(8, 8, 1))
    train.train(spec, recipe, None, tmp_path / "m.pt", start="resnet8-digits")
    metrics = checkpoint.load(tmp_path / "m.pt").metrics
    assert metrics["validation"] > 90 and metrics["started_from"]["accuracy"]["dataset"] == "digits"


def test_the_validation_images_are_trained_on_if_asked(tmp_path):
    recipe = Recipe("digits", epochs=1, batch=32, crop=0, flip=False)
    held = train.train(SPEC, recipe, None, tmp_path / "held.pt")
    both = train.train(SPEC, replace(recipe, all_images=True), None, tmp_path / "all.pt")
    parts = [datasets.load("digits", split=split) for split in ("train", "validation")]
    assert torch.equal(held.batches.labels, torch.from_numpy(parts[0].labels))
    labels = np.concatenate([part.labels for part in parts])
    assert torch.equal(both.batches.labels, torch.from_numpy(labels))
    pixels = np.concatenate([part.pixels for part in parts])
    assert torch.equal(both.batches.pixels, torch.from_numpy(pixels))
    metrics = checkpoint.load(tmp_path / "all.pt").metrics
    assert "--all-images" in metrics["command"] and "validation" not in metrics


def test_activations_begin_as_the_identity_on_a_start_without(tmp_path):
    recipe = Recipe("digits", epochs=1, batch=64, crop=0, flip=False, lr=1e-9)
    for activation in ("rprelu", "maxout"):
        spec = NetworkSpec(depth=8, input=(8, 8, 1), repair=Repair(activation=activation))
        train.train(spec, recipe, None, tmp_path / "m.pt", start="resnet8-digits")
        assert checkpoint.load(tmp_path / "m.pt").metrics["validation"] > 90
    with pytest.raises(UserError, match="m.pt: its network is"):  # and none is left out
        spec = NetworkSpec(depth=8, input=(8, 8, 1))
        train.train(spec, recipe, None, tmp_path / "n.pt", start=str(tmp_path / "m.pt"))
