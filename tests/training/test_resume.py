"""What a training goes on from, what it refuses to lose, and how it stops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import datasets, teach, train
from bnnhw.errors import Diverged, UserError
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import checkpoint
from bnnhw.training.loop import ADDED
from bnnhw.training.recipe import Recipe
from bnnhw.training.run import train as run
from bnnhw.training.trainer import Trainer

SPEC = NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1))
RECIPE = Recipe("digits", epochs=1, batch=128, crop=0, flip=False)
WORDS = ("--dataset", "digits", "--depth", 8, "--widths", "4,4,4", "--batch", 128, "--crop", 0)


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words, command=train):
    return CliRunner().invoke(command.main, [str(word) for word in words])


def fault(result):
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    return result.exit_code, line


def test_more_epochs_go_on_from_a_finished_training(tmp_path):
    out = tmp_path / "m.pt"
    run(SPEC, RECIPE, None, out)
    first = checkpoint.load(out)
    told = []
    run(SPEC, replace(RECIPE, epochs=3), None, out, resume=True, log=told.append)
    longer = checkpoint.load(out)
    assert longer.metrics["epochs"] == 3 and "continued" not in first.metrics
    assert longer.metrics["continued"] == [dict(epoch=1, epochs=1, minutes=None)]
    epochs = [entry["epoch"] for entry in told if "epoch" in entry]
    assert epochs[:2] == [2, 3]  # and none of the first again
    lines = (tmp_path / "m.pt.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines][:3] == [1, 2, 3]
    told.clear()
    run(SPEC, replace(RECIPE, epochs=3), None, out, resume=True, log=told.append)
    assert not [entry for entry in told if "epoch" in entry]
    assert "has had all its epochs" in next(entry["note"] for entry in told if "note" in entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lr=0.5), "lr was 0.01, is 0.5; resume"),
        (dict(lr=0.5, batch=64), "batch was 128, is 64, lr was 0.01, is 0.5; resume"),
        (dict(repair=Repair(padding="minus-one")), "padding was zero, is minus-one; resume"),
        (dict(widths=(4, 4, 6)), r"widths was \[4, 4, 4\], is \[4, 4, 6\]; resume"),
        (dict(pad=(7,)), r"pad was not set, is \[7\]; resume"),
    ],
)
def test_what_differs_is_named_alone(tmp_path, change, message):
    out = tmp_path / "m.pt"
    run(SPEC, RECIPE, None, out)
    of_recipe = {name: value for name, value in change.items() if hasattr(RECIPE, name)}
    spec = replace(SPEC, **{n: v for n, v in change.items() if n not in of_recipe})
    with pytest.raises(UserError, match=f"m.pt.state: {message} with what") as caught:
        run(spec, replace(RECIPE, **of_recipe), None, out, resume=True)
    assert "seed" not in str(caught.value)


def test_fewer_epochs_other_images_and_other_files_are_refused(tmp_path):
    out, state = tmp_path / "m.pt", tmp_path / "m.pt.state"
    images = datasets.load("digits", None, "train")
    own = dict(x=images.pixels, y=images.labels)
    np.savez(tmp_path / "own.npz", **own)
    recipe = replace(RECIPE, dataset="own", epochs=2)
    run(SPEC, recipe, str(tmp_path / "own.npz"), out)
    with pytest.raises(UserError, match="epochs was 2, is 1; resume"):
        run(SPEC, replace(recipe, epochs=1), str(tmp_path / "own.npz"), out, resume=True)
    np.savez(tmp_path / "own.npz", **(own | dict(x=255 - images.pixels)))
    with pytest.raises(UserError, match="was started with other images; give the same --data"):
        run(SPEC, recipe, str(tmp_path / "own.npz"), out, resume=True)
    state.write_bytes(out.read_bytes())
    with pytest.raises(UserError, match="not a training state"):
        run(SPEC, RECIPE, None, out, resume=True)


def test_a_state_of_an_earlier_version_goes_on(tmp_path):
    out, state = tmp_path / "m.pt", tmp_path / "m.pt.state"
    run(SPEC, RECIPE, None, out)
    content = torch.load(state, weights_only=True)
    for name in ADDED:
        del content[name]
    del content["recipe"]["resize"]
    torch.save(content, state)
    run(SPEC, replace(RECIPE, epochs=2), None, out, resume=True)
    assert checkpoint.load(out).metrics["epochs"] == 2


def test_nothing_is_overwritten_unless_asked(tmp_path):
    out = tmp_path / "new" / "folder" / "m.pt"
    assert invoke(*WORDS, "--epochs", 1, "--out", out).exit_code == 0
    kept = out.read_bytes()
    for epochs in (0, 1):
        code, line = fault(invoke(*WORDS, "--epochs", epochs, "--out", out))
        assert code == 2 and "m.pt: is there already; --resume goes on with it, --over" in line
    assert out.read_bytes() == kept
    assert invoke(*WORDS, "--epochs", 1, "--seed", 1, "--out", out, "--overwrite").exit_code == 0
    assert checkpoint.load(out).metrics["seed"] == 1
    assert invoke(*WORDS, "--epochs", 0, "--out", out, "--overwrite").exit_code == 0
    assert not (out.parent / "m.pt.state").exists()  # it was of another network
    words = (*WORDS[:-2], "--epochs", 1, "--out", tmp_path / "t.pt")
    assert invoke(*words, command=teach).exit_code == 0
    code, line = fault(invoke(*words, command=teach))
    assert code == 2 and "t.pt: is there already" in line


def test_a_place_for_the_network_is_made_before_the_images_are_read(tmp_path):
    out = tmp_path / "new" / "m.pt"
    code, line = fault(invoke("--data", tmp_path / "no.npz", "--epochs", 1, "--out", out))
    assert code == 2 and "no.npz" in line and out.parent.is_dir()
    (tmp_path / "file").write_text("mine")
    words = ("--data", tmp_path / "no.npz", "--epochs", 1, "--out", tmp_path / "file" / "m.pt")
    code, line = fault(invoke(*words))
    assert code == 2 and "file/m.pt" in line and "choose another place" in line


@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_numbers_that_are_not_finite_stop_the_training_with_1(tmp_path, monkeypatch, broken):
    out, step = tmp_path / "m.pt", Trainer._step

    def wrong(self, batch, done):
        loss = step(self, batch, done)
        if self.epoch == 1 and broken == "weight":
            with torch.no_grad():
                self.model.head.weight[0, 0] = torch.inf
        return loss * torch.nan if self.epoch == 1 and broken == "loss" else loss

    monkeypatch.setattr(Trainer, "_step", wrong)
    code, line = fault(invoke(*WORDS, "--epochs", 3, "--out", out))
    assert code == 1 and "epoch 2: the loss or a weight is no longer a finite number" in line
    assert checkpoint.load(out).metrics["epochs"] == 1  # all of it finite
    monkeypatch.undo()
    run(SPEC, replace(RECIPE, epochs=3), None, out, resume=True)
    assert checkpoint.load(out).metrics["epochs"] == 3


def test_a_rate_that_is_too_great_is_met_by_itself(tmp_path):
    with pytest.raises(Diverged, match="try a smaller --lr"):
        recipe = replace(RECIPE, epochs=4, lr=1e30, warm_up=0.0)
        run(replace(SPEC, repair=Repair(optimizer="sgd")), recipe, None, tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


def test_another_stem_begins_anew_and_says_so(tmp_path):
    spec = NetworkSpec(depth=8, input=(8, 8, 1), repair=Repair(stem="thermometer"))
    recipe, told = replace(RECIPE, lr=1e-9), []
    trainer = run(spec, recipe, None, tmp_path / "m.pt", start="resnet8-digits", log=told.append)
    note = next(entry["note"] for entry in told if "note" in entry)
    assert note == "--start resnet8-digits: begins anew with the stem"
    metrics = checkpoint.load(tmp_path / "m.pt").metrics
    assert metrics["begun_anew"] == ["the stem"] and "accuracy" in metrics["started_from"]
    theirs = checkpoint.load(checkpoint.bundled("resnet8-digits")).state
    mine = trainer.model.state_dict()
    assert torch.allclose(mine["head.weight"], theirs["head.weight"], atol=1e-4)
    assert torch.allclose(mine["stem.norm.weight"], torch.ones(16), atol=1e-4)
    assert not torch.allclose(theirs["stem.norm.weight"], torch.ones(16), atol=1e-2)
