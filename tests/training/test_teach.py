"""Training a float teacher, going on with it, and learning from it."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from bnnhw import teach, train
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.nn.teacher import load_teacher
from bnnhw.training.recipe import Recipe
from bnnhw.training.teaching import TeacherTrainer
from bnnhw.training.trainer import random_images

SPEC = NetworkSpec(8, (4, 4, 6), (8, 8, 3), 3)


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(command, *words):
    return CliRunner().invoke(command.main, [str(word) for word in words])


def test_a_teacher_learns_by_heart_and_goes_on_exactly(tmp_path):
    images = random_images(SPEC, 24)
    recipe = Recipe(epochs=8, batch=8, lr=0.1, weight_decay=5e-4, crop=0, flip=False)

    def trainer() -> TeacherTrainer:
        return TeacherTrainer(SPEC.blocks[0], SPEC.widths, recipe, images, images)

    whole, told = trainer(), []
    states = tmp_path / "state"
    whole.run(told.append, lambda top1: whole.epoch == 3 and torch.save(whole.state(), states))
    losses = [entry["loss"] for entry in told if "epoch" in entry]
    assert len(losses) == 8 and losses[-1] < 0.7 * losses[0]
    again = trainer()
    again.restore(torch.load(states, weights_only=True), states)
    again.run(lambda entry: None, lambda top1: None)
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name


def test_the_first_step_is_sgd_with_weight_decay():
    images = random_images(SPEC, 8)
    recipe = Recipe(epochs=1, batch=8, lr=0.1, weight_decay=0.5, warm_up=0.0, crop=0, flip=False)
    trainer = TeacherTrainer(SPEC.blocks[0], SPEC.widths, recipe, images, images)
    before = trainer.model.fc.weight.detach().clone()
    trainer.run(lambda entry: None, lambda top1: None)
    fc = trainer.model.fc.weight
    torch.testing.assert_close(fc.detach(), before - 0.1 * (fc.grad + 0.5 * before))


def test_the_command_writes_a_teacher_that_binary_networks_learn_from(tmp_path):
    words = ("--dataset", "digits", "--depth", 8, "--widths", "4,4,4", "--epochs", 1)
    out, student = tmp_path / "teacher.pt", tmp_path / "student.pt"
    assert invoke(teach, *words, "--out", out).exit_code == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["teacher.pt", "teacher.pt.log.jsonl", "teacher.pt.state"]
    (line,) = map(json.loads, (tmp_path / "teacher.pt.log.jsonl").read_text().splitlines())
    assert line["epoch"] == 1 and 0 <= line["validation"] <= 100
    teacher = load_teacher(torch.load(out, weights_only=True), "here")
    assert (teacher.blocks, teacher.widths, teacher.classes) == (1, (4, 4, 4), 10)
    for kind in ("logits", "attention"):
        repair = ("--repair", f"teacher_student={kind}")
        result = invoke(train, *words, *repair, "--teacher", out, "--out", student, "--overwrite")
        assert result.exit_code == 0, result.output
        assert checkpoint.load(student).metrics["recipe"]["distil"] == 0.5


def test_a_teacher_of_other_images_is_refused(tmp_path):
    out = tmp_path / "teacher.pt"
    torch.save(TeacherTrainer(1, (4, 4), Recipe(epochs=1, batch=2, lr=0.1, weight_decay=0.0),
                              *[random_images(SPEC, 2)] * 2).model.content(), out)  # fmt: skip
    words = ("--dataset", "digits", "--epochs", 1, "--repair", "teacher_student=logits")
    result = invoke(train, *words, "--teacher", out, "--out", tmp_path / "m.pt")
    assert "teacher.pt: the teacher has 3 channels, the network 1" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", 1], "error: no data: give --data"),
        (["--dataset", "digits", "--epochs", 0], "error: epochs=0: must be greater than 0"),
        (["--dataset", "digits", "--depth", 9], "error: depth=9: must be 6n+2"),
        (["--dataset", "digits", "--resume"], "t.pt.state: No such file"),
    ],
)
def test_wrong_options_end_with_one_line(tmp_path, words, message):
    result = invoke(teach, *words, "--out", tmp_path / "t.pt")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0]
