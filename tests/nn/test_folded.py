"""Folded layers, evaluated in plain numpy, against the float layers they come from."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from bnnhw.errors import UserError
from bnnhw.network.folded import Folded, FoldedShortcut, FoldedThermometer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec
from bnnhw.nn import untrained
from bnnhw.nn.quantisers import quantise_residual
from tests.nn.repairs import COMBINED, REPAIRS, name


def signs(bits: np.ndarray) -> np.ndarray:
    return np.where(bits, 1.0, -1.0)


def convolve(x: np.ndarray, weights: np.ndarray, stride: int, pad: float) -> np.ndarray:
    """x (B, H, W, I), weights (O, 3, 3, I) -> (B, out H, out W, O)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("bhwiyx,oyxi->bhwo", windows[:, ::stride, ::stride], weights.astype(float))


def shorten(part: FoldedShortcut | None, shape: Convolution, repair: Repair,
            stream: np.ndarray) -> np.ndarray:  # fmt: skip
    """The shortcut, from the words of its definition."""
    step, wide = shape.shortcut_stride, shape.out_channels
    if part is not None:
        kept = stream[:, ::step, ::step]
        kept = signs(kept >= 0) if part.binary else kept
        return part.gain * (kept @ part.weights.T.astype(float)) + part.offset
    if step == 2 and repair.downsample == "avgpool-duplicate":
        batch, height, width, _ = stream.shape
        edges = np.pad(stream, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
        split = edges.reshape(batch, shape.out_height, 2, shape.out_width, 2, -1)
        return split.mean((2, 4))[..., np.arange(wide) % shape.shortcut_channels]
    result = np.zeros((len(stream), shape.out_height, shape.out_width, wide))
    front = shape.shortcut_offset
    result[..., front : front + shape.shortcut_channels] = stream[:, ::step, ::step]
    return result


def activate(folded: Folded, y: np.ndarray) -> np.ndarray:
    part = folded.activation
    if part is None:
        return y
    t = y - part.shift_in
    return np.where(t >= 0, part.positive, part.negative) * t + part.shift_out


def border(values: np.ndarray, shape: Convolution) -> np.ndarray:
    """By the windows' places: (out_height, out_width, C)."""

    def case(at: int, size: int) -> int:
        return 0 if at == 0 else 2 if at + 1 == size else 1

    step = shape.stride
    rows = [case(at, shape.height) for at in range(0, shape.height, step)]
    columns = [case(at, shape.width) for at in range(0, shape.width, step)]
    return values[rows][:, columns]


def evaluate(folded: Folded, shape: Convolution, repair: Repair, x: np.ndarray,
             stream: np.ndarray) -> np.ndarray:  # fmt: skip
    """One layer, by the contract of `Folded`; all in float64."""
    pad = -1.0 if repair.padding == "minus-one" else 0.0
    y = 0.0
    for term in folded.terms:
        bits = signs(x >= folded.thresholds[term.feature])
        y = y + term.gain * convolve(bits, term.weights, shape.stride, pad)
    if folded.spatial is not None:
        y = y * folded.spatial[..., None]
    y = y + folded.offset
    if folded.border is not None:
        y = y + border(folded.border, shape)
    last = shape.shortcut and repair.activation_position == "after-add"
    y = y if last else activate(folded, y)
    if folded.gate is not None:
        gate = folded.gate
        hidden = np.maximum(0, y.mean((1, 2)) @ gate.w1.T + gate.b1)
        y = y * np.clip((hidden @ gate.w2.T + gate.b2) / 6 + 0.5, 0, 1)[:, None, None]
    if shape.shortcut:
        y = y + shorten(folded.shortcut, shape, repair, stream)
    return activate(folded, y) if last else y


def plain(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).double().numpy()


def evaluate_stem(model, pixels: np.ndarray) -> np.ndarray:
    folded, spec = model.stem.folded(), model.spec
    size = (len(pixels), pixels.shape[1] + 2, pixels.shape[2] + 2, pixels.shape[3])
    around = np.broadcast_to(np.array(spec.pad or 128, float), size).copy()
    around[:, 1:-1, 1:-1] = pixels
    if not isinstance(folded, FoldedThermometer):
        acc = convolve(around - 128.0, folded.weights, 1, 0.0)[:, 1:-1, 1:-1]
        return activate(folded, folded.gain * acc + folded.offset)
    seen = around if spec.pad else pixels
    bits = signs(seen[..., None] >= folded.levels).reshape(*seen.shape[:3], -1)
    pad = -1.0 if spec.repair.padding == "minus-one" else 0.0
    acc = convolve(bits, folded.term.weights, 1, pad)
    acc = acc[:, 1:-1, 1:-1] if spec.pad else acc
    return activate(folded, folded.term.gain * acc + folded.offset)


THERMOMETER = Repair(stem="thermometer")
FOREIGN = {
    "stem's activation": dict(stem_activation="rprelu"),
    "thermometer's activation": dict(repair=THERMOMETER, stem_activation="maxout"),
    "pad": dict(pad=(3, 200)),
    "thermometer's pad": dict(repair=THERMOMETER, pad=(3, 200)),
    "minus-one, thermometer's pad": dict(
        repair=Repair(stem="thermometer", padding="minus-one"), pad=(3, 200)
    ),
    "levels": dict(repair=THERMOMETER, levels=(1, 9, 40, 200)),
    "adabin": dict(repair=Repair(binary_sets="adabin"), adabin_padding="zero"),
    "adabin, no norm": dict(
        repair=Repair(binary_sets="adabin", feature_normalization="none", activation="maxout"),
        adabin_padding="zero",
    ),
    "adabin, single": dict(
        repair=Repair("rsign", binary_sets="adabin", double_residual=False, activation="rprelu"),
        adabin_padding="zero",
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("settings", [dict(repair=repair) for repair in REPAIRS]
                         + [*FOREIGN.values()],
                         ids=[*map(name, REPAIRS), *FOREIGN])  # fmt: skip
def test_every_layer_is_its_folded_form(settings):
    spec = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3, **settings)
    repair = spec.repair
    model = untrained(spec, seed=2)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 2), dtype=np.uint8)
    x = model.stem(model.pixels(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(plain(x), evaluate_stem(model, pixels), atol=1e-4)
    x = stream = quantise_residual(x, spec.formats)
    for layer in model.layers():
        folded = layer.folded()
        y = layer(x, stream if layer.shape.shortcut else None)
        expected = evaluate(folded, layer.shape, repair, plain(x), plain(stream))
        np.testing.assert_allclose(plain(y), expected, atol=1e-4, err_msg=layer.shape.name)
        assert expected.std() > 0.1
        x = y
        if layer.shape.shortcut:
            x = stream = quantise_residual(y, spec.formats)


@pytest.mark.parametrize("repair", COMBINED, ids=name)
def test_folded_arrays_have_the_shapes_and_types_of_their_contract(repair):
    spec = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3, repair=repair)
    for layer in untrained(spec).layers():
        shape, folded = layer.shape, layer.folded()
        out, into = shape.out_channels, shape.in_channels
        assert folded.thresholds.shape == (repair.features, into)
        assert folded.offset.shape == (out,) and folded.offset.dtype == np.float64
        for term in folded.terms:
            assert term.weights.dtype == np.int8 and set(np.unique(term.weights)) <= {-1, 1}
            assert term.weights.shape in ((out, 3, 3, into), (1, 3, 3, into))
            assert term.gain.shape == (out,) and 0 <= term.feature < repair.features
        assert {term.feature for term in folded.terms} == set(range(repair.features))
        assert (folded.spatial is not None) == (repair.scaling == "spatial")
        assert (folded.activation is not None) == (repair.activation != "none")
        if folded.activation is not None:
            arrays = asdict(folded.activation).values()
            assert all(a.shape == (out,) and a.dtype == np.float64 for a in arrays)
        assert (folded.gate is not None) == (shape.shortcut and repair.squeeze_excitation == "se")
        changes = shape.shortcut and shape.shortcut_stride == 2
        assert (folded.shortcut is not None) == (changes and "conv1x1" in repair.downsample)


@torch.no_grad()
def test_a_norm_before_without_gain_always_or_never_passes_its_threshold():
    spec = NetworkSpec(repair=Repair(feature_normalization="bn-before"))
    layer = untrained(spec).layers()[0]
    layer.norm_before.weight[:2] = 0
    layer.norm_before.bias[:2] = torch.tensor([0.5, -0.5])
    assert layer.folded().thresholds[0, :2].tolist() == [-np.inf, np.inf]
    layer.norm_before.bias[0] = 0  # sign(0) is +1
    assert layer.folded().thresholds[0, 0] == -np.inf


@torch.no_grad()
@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda layer: layer.norm.running_var[2].fill_(-1),
         r"stage0.0.conv1.norm.running_var\[2\]=-1.0: must not be negative"),
        (lambda layer: layer.norm.bias[1].fill_(torch.nan),
         r"stage0.0.conv1.norm.bias\[1\]=nan: must be finite"),
        (lambda layer: layer.weight.view(-1)[3].fill_(torch.inf),
         r"stage0.0.conv1.weight\[3\]=inf: must be finite"),
        (lambda layer: layer.activation.negative[0].fill_(torch.nan),
         r"stage0.0.conv1.activation.negative\[0\]=nan: must be finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_folded_is_named(spoil, fault):
    layer = untrained(NetworkSpec(repair=Repair(activation="prelu"))).layers()[0]
    spoil(layer)
    with pytest.raises(UserError, match=fault):
        layer.folded()
