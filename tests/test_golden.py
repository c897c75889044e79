"""The golden model against plain loops over Python integers, and its interface."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bnnhw import golden
from bnnhw.errors import UserError
from bnnhw.integer import IntegerNetwork
from bnnhw.lower import lower
from bnnhw.nn import untrained
from bnnhw.spec import NetworkSpec, NumberFormats, Repair


def window_sum(x: np.ndarray, weights: np.ndarray, stride: int, outside: int) -> np.ndarray:
    """3x3 convolution of whole numbers (H, W, C) by its definition, one image."""
    height, width, _ = x.shape
    out = np.zeros((-(-height // stride), -(-width // stride), len(weights)), np.int64)
    for row, column, channel in np.ndindex(*out.shape):
        total = 0
        for dy, dx in np.ndindex(3, 3):
            at_y, at_x = row * stride + dy - 1, column * stride + dx - 1
            inside = 0 <= at_y < height and 0 <= at_x < width
            for c in range(x.shape[2]):
                value = int(x[at_y, at_x, c]) if inside else outside
                total += value * int(weights[channel, dy, dx, c])
        out[row, column, channel] = total
    return out


def requantise(half, stream, part, formats):
    """Residual and bits of one image (H, W, C), value by value."""
    limit = 2 ** (formats.residual_width - 1)
    y = np.zeros(half.shape, np.int64)
    for at in np.ndindex(*half.shape):
        channel = at[2]
        p = (
            int(half[at])
            * int(part.scale[channel])
            // 2 ** (formats.scale_fraction - formats.guard)
        )
        total = int(stream[at]) * 2**formats.guard + p + int(part.bias[channel])
        y[at] = max(-limit, min(limit - 1, total // 2**formats.guard))
    return y, (y >= part.threshold).astype(int)


def naive(network: IntegerNetwork, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of one image, straight from the docstring of bnnhw.integer."""
    spec, formats, taps = network.spec, network.spec.formats, {"input": image}
    acc = window_sum(image.astype(int) - 128, network.stem.weights, 1, 0)
    half = acc // 2**network.stem.pre_shift
    stream, bits = requantise(half, np.zeros_like(half), network.stem.requantiser, formats)
    taps |= {"stem.acc": acc, "stem.residual": stream, "stem.bits": bits}
    outside = -1 if spec.repair.padding == "minus-one" else 0
    for part in network.convolutions:
        shape = part.shape
        acc = window_sum(bits * 2 - 1, part.weights, shape.stride, outside)
        taps[f"{shape.name}.acc"] = acc
        if part.requantiser is None:
            bits = (acc >= part.threshold).astype(int)
        else:
            step, front = shape.shortcut_stride, shape.shortcut_offset
            added = np.zeros(acc.shape, np.int64)
            added[:, :, front : front + shape.shortcut_channels] = stream[::step, ::step]
            assert (acc % 2 == 0).all()
            stream, bits = requantise(acc // 2, added, part.requantiser, formats)
            taps[f"{shape.name}.residual"] = stream
        taps[f"{shape.name}.bits"] = bits
    bias = network.head.bias_mantissa.astype(int) * 2**network.head.bias_shift
    logits = np.array([(stream * row.astype(int)).sum() for row in network.head.weights]) + bias
    return taps | {"head.logits": logits, "class": logits.tolist().index(max(logits))}


@pytest.mark.parametrize("padding", ["zero", "minus-one"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(9, 7, 2), (8, 8, 1)])
def test_every_tensor_equals_the_definition(padding, double, shape):
    spec = NetworkSpec(depth=6, widths=(2, 6), input=shape, classes=3,
                       repair=Repair("rsign", double, padding))  # fmt: skip
    network = lower(untrained(spec, seed=7))
    images = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    images[1] = np.array([0, 255], np.uint8)[np.indices(shape).sum(0) % 2]
    taps = golden.run(network, images, "all")
    for at, image in enumerate(images):
        expected = naive(network, image)
        assert tuple(expected) == tuple(taps) == golden.tap_names(spec)
        for name, tensor in expected.items():
            assert np.array_equal(taps[name][at], tensor), name


def test_random_networks_exercise_both_bits_and_saturation():
    spec = NetworkSpec(depth=14, widths=(16, 32, 48), input=(24, 24, 1), classes=7)
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 1), dtype=np.uint8)
    taps = golden.run(lower(untrained(spec, 1)), images, "all")
    for name, tensor in taps.items():
        if name.endswith(".bits"):
            assert 0.2 < tensor.mean() < 0.8, name
        if name.endswith(".residual"):
            assert tensor.std() > 10 and (np.abs(tensor) >= 127).mean() < 0.05, name
    last = taps["stage2.1.conv2.residual"]
    assert last.min() == -128 and last.max() == 127
    assert len(set(taps["class"].tolist())) > 1


def test_other_formats_equal_the_definition():
    formats = NumberFormats(residual_width=11, residual_fraction=6, scale_fraction=9, guard=2)
    spec = NetworkSpec(depth=6, widths=(16, 32), input=(4, 5, 3), classes=2, formats=formats)
    network = lower(untrained(spec, seed=2))
    assert network.convolutions[2].shape.shortcut_offset == 8
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    taps = golden.run(network, image[None], "all")
    for name, tensor in naive(network, image).items():
        assert np.array_equal(taps[name][0], tensor), name


def test_taps_types_and_batches():
    spec = NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1), classes=3)
    network = lower(untrained(spec))
    images = np.random.default_rng(0).integers(0, 256, (golden.BATCH + 3, 8, 8, 1), dtype=np.uint8)
    seen: list[int] = []
    some = golden.run(network, images, ["stem.acc", "stem.bits"], progress=seen.append)
    assert seen == [golden.BATCH, golden.BATCH + 3]
    assert set(some) == {"stem.acc", "stem.bits", "head.logits", "class"}
    assert {name: tensor.dtype.name for name, tensor in some.items()} == {
        "stem.acc": "int32", "stem.bits": "uint8", "head.logits": "int64", "class": "int64",
    }  # fmt: skip
    assert some["stem.acc"].shape == (golden.BATCH + 3, 8, 8, 4)
    assert np.array_equal(golden.run(network, images[-2:])["head.logits"], some["head.logits"][-2:])


def test_equal_logits_give_the_lowest_class():
    network = lower(untrained(NetworkSpec(depth=4, widths=(2,), input=(4, 4, 1), classes=4)))
    network.head.weights[:] = 0
    network.head.bias_mantissa[:] = [1, 5, 5, 2]
    assert golden.run(network, np.zeros((1, 4, 4, 1), np.uint8))["class"].tolist() == [1]


@pytest.mark.parametrize(
    ("images", "taps", "message"),
    [
        (np.zeros((1, 8, 9, 1), np.uint8), None, r"needs uint8 \(N, 8, 8, 1\)"),
        (np.zeros((1, 8, 8, 1), np.float32), None, "has float32"),
        (np.zeros((0, 8, 8, 1), np.uint8), None, "there are none"),
        (np.zeros((1, 8, 8, 1), np.uint8), ["stem.sum"], "no such tensor; choose from input"),
    ],
)
def test_wrong_use_is_explained(images, taps, message):
    network = lower(untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1))))
    with pytest.raises(UserError, match=message):
        golden.run(network, images, taps)


def test_speed_allows_whole_test_sets():
    network = lower(untrained(NetworkSpec()))
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    golden.run(network, images[:8])
    started = time.process_time()
    golden.run(network, images)
    assert time.process_time() - started < 3.6  # CPU seconds: 10,000 images in 3 minutes on 2 cores
