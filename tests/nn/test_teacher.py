"""Learning from a teacher: its file, its logits and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnhw.data import Images
from bnnhw.errors import UserError
from bnnhw.nn.teacher import Teacher, load_teacher, teach
from bnnhw.nn.training import TEMPERATURE, Batches, Recipe, distillation


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


def test_distillation_is_the_scaled_divergence():
    logits, taught = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    p, q = (F.softmax(x / TEMPERATURE, 1) for x in (taught, logits))
    expected = (p * (p / q).log()).sum(1).mean() * TEMPERATURE**2
    torch.testing.assert_close(distillation(logits, taught), expected)
    assert distillation(taught, taught).abs() < 1e-5


@pytest.mark.parametrize("state", [{}, [1], None, {"stem.weight": torch.zeros(1)}])
def test_other_files_are_no_teacher(state):
    with pytest.raises(UserError, match="here: not the state dict of a float CIFAR-10 ResNet-20"):
        load_teacher(state, "here")
