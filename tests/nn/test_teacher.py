"""Learning from a teacher: its file, its logits and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnnhw.datasets import Images
from bnnhw.errors import UserError
from bnnhw.nn.teacher import Teacher, load_teacher, teach
from bnnhw.training.batches import Batches
from bnnhw.training.recipe import Recipe


def test_logits_are_of_each_image_and_its_mirror_image():
    torch.manual_seed(0)
    teacher = load_teacher(Teacher().state_dict(), "here")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    taught = teach(teacher, pixels)
    assert taught.shape == (2, 6, 10) and taught.dtype == torch.float32
    assert torch.equal(teach(teacher, pixels[:, :, ::-1].copy()), taught.flip(0))
    with torch.no_grad():
        exact = teacher(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    torch.testing.assert_close(taught[0], exact, atol=0.05, rtol=0.05)


def test_batches_carry_the_logits_of_what_they_show():
    pixels = np.zeros((8, 4, 4, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(1, 9)
    side = torch.arange(16.0).reshape(2, 8, 1)
    batches = Batches(Images(pixels, np.arange(8), 8), Recipe(epochs=1, batch=8, crop=0),
                      torch.device("cpu"), side)  # fmt: skip
    (batch,) = batches.epoch(torch.Generator().manual_seed(3))
    mirrored = batch.pixels[:, 0, 0, 3] > 0
    assert 0 < mirrored.sum() < 8
    assert batch.taught.flatten().tolist() == (batch.labels + 8 * mirrored).tolist()


def test_a_teacher_of_any_shape_is_read_back():
    torch.manual_seed(0)
    teacher = Teacher(blocks=2, widths=(4, 4, 6), classes=7, channels=1).eval()
    again = load_teacher(teacher.content(), "here")
    pixels = torch.randint(0, 256, (3, 1, 12, 10), dtype=torch.uint8)
    logits, maps = again.stages(pixels)
    assert torch.equal(logits, teacher(pixels)) and logits.shape == (3, 7)
    assert [tuple(x.shape[1:]) for x in maps] == [(4, 12, 10), (4, 6, 5), (6, 3, 3)]
    torch.testing.assert_close(
        logits, maps[-1].mean((2, 3)) @ teacher.fc.weight.T + teacher.fc.bias
    )


@pytest.mark.parametrize(
    "state",
    [{}, [1], None, {"stem.weight": torch.zeros(1)}, {"format": "bnnhw-teacher"},
     {"format": "bnnhw-teacher", "shape": {"blocks": 1, "depth": 3}, "state": {}}],
)  # fmt: skip
def test_other_files_are_no_teacher(state):
    with pytest.raises(UserError, match="here: neither a teacher of python -m bnnhw.teach"):
        load_teacher(state, "here")
