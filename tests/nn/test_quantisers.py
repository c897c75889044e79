"""Fake quantisers against their definitions."""

from __future__ import annotations

import pytest
import torch

from bnnhw.network.spec import NumberFormats
from bnnhw.nn.kernels import walks
from bnnhw.nn.quantisers import (
    PixelScaling,
    int8_scale,
    quantise_residual,
    quantise_weight,
)


def gradient(function, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    function(x).backward(torch.arange(1.0, x.numel() + 1).reshape(x.shape).to(x.dtype))
    return x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_residuals_round_half_up_and_saturate(dtype):
    x = torch.tensor([0.0, 0.03125, -0.03125, 0.03, -0.033, 7.875, 7.97, 100.0, -8.0, -9.0])
    got = quantise_residual(x.to(dtype), NumberFormats()) * 16
    assert got.tolist() == [0, 1, 0, 0, -1, 126, 127, 127, -128, -128]
    assert not torch.signbit(got[2])


def test_residual_gradient_stops_where_saturated():
    x = torch.tensor([0.0, 7.8, 7.9, 9.0, -7.9, -8.0, -20.0]).reshape(1, -1, 1, 1)
    grad = gradient(lambda v: quantise_residual(v, NumberFormats()), x)
    assert grad.flatten().tolist() == [1, 2, 3, 0, 5, 0, 0]


@pytest.mark.parametrize("own", [True, False], ids=["own kernels", "PyTorch"])
@pytest.mark.parametrize("formats", [NumberFormats(), NumberFormats(12, 6)], ids=["8 bits", "12"])
def test_no_gradient_passes_saturated_bfloat16(own, formats, monkeypatch, one_thread):
    """The greatest 12-bit value, 31.984, is no bfloat16: it is 32 there."""
    if not own:
        monkeypatch.setattr(walks, "takes", lambda x: False)
    top = 2.0 ** (formats.residual_width - 1 - formats.residual_fraction)
    x = torch.cat([torch.linspace(-1.5, 1.5, 193) * top, torch.linspace(0.98, 1.02, 31) * top])
    x = x.bfloat16().reshape(1, -1, 1, 1)
    grad = gradient(lambda v: quantise_residual(v, formats), x).flatten()
    y = quantise_residual(x, formats).flatten()
    limits = torch.tensor([-top, top - 2.0**-formats.residual_fraction]).bfloat16()
    assert ((grad != 0) == ((y > limits[0]) & (y < limits[1]))).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_residual_has_the_gradient(monkeypatch):
    """Of the whole graph, as on a GPU, where the own kernels are not."""
    monkeypatch.setattr(walks, "takes", lambda x: False)
    x = torch.linspace(-10, 10, 64).reshape(1, 4, 4, 4)

    def rounded(v: torch.Tensor) -> torch.Tensor:
        return quantise_residual(v, NumberFormats())

    grad = gradient(torch.compile(rounded, fullgraph=True), x)
    assert torch.equal(grad, gradient(rounded, x)) and grad.count_nonzero() > 40


def test_weights_are_int8_multiples_with_straight_gradient():
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[4] = 0
    scale = int8_scale(weight, per_channel=True)
    assert scale.shape == (5, 1, 1, 1) and scale[4] == 1
    steps = quantise_weight(weight, per_channel=True) / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert steps.abs().amax((1, 2, 3)).round().tolist() == [127, 127, 127, 127, 0]
    assert (steps * scale - weight).abs().max() <= scale.max() / 2 + 1e-6
    grad = gradient(lambda w: quantise_weight(w, per_channel=False), weight)
    assert grad.flatten().tolist() == list(range(1, weight.numel() + 1))


def test_pixels_are_exact_and_128_is_zero():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = PixelScaling()(pixels).flatten()
    assert x[128] == 0 and x[0] == -2 and x[255] == 127 / 64
