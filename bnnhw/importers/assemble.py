"""The layers of a foreign graph -> FoldedNetwork.

A foreign shortcut may put its channels elsewhere than ours. The order of a layer's channels is
free, so they are put in the order of the spec.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from bnnhw.importers.binary import two_valued, whole
from bnnhw.importers.chain import Blame, Chain, Part, blaming
from bnnhw.importers.values import Moved, Real, Unsupported, reduced
from bnnhw.network.folded import (
    Folded,
    FoldedActivation,
    FoldedHead,
    FoldedNetwork,
    FoldedShortcut,
    FoldedStem,
    Term,
)
from bnnhw.network.layers import Layer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec, NumberFormats

LONGEST = 60  # letters of a layer's name
LINEAR = 1e-5  # of a byte's step, by which a pixel's value may lie off its line
Tell = Callable[[str], None]


def assemble(found: Chain, formats: NumberFormats, blame: Blame, tell: Tell) -> FoldedNetwork:
    """Returns the network of these layers.

    blame : a node's name -> it with its neighbours, for errors. tell : gets a sentence about
    everything that is rounded.
    """
    with blaming(found.stem.node, blame):
        stem, pad = _stem(found, tell)
    spec = _spec(found, stem, pad, formats)
    layers, order, stream = [], np.arange(len(stem.gain)), np.arange(len(stem.gain))
    sets = spec.adabin_padding == "zero"
    for shape, part in zip(spec.convolutions(), found.parts, strict=True):
        out = np.arange(shape.out_channels)
        shortcut = None
        if part.shortcut is not None:
            with blaming(part.node, blame):
                out, shortcut = _shortcut(part, part.shortcut, shape, stream)
        repair = shape.repair or spec.repair
        layers.append(_layer(part, repair, order, out, shortcut, zero=sets))
        order, stream = out, out if part.shortcut is not None else stream
    with blaming(found.logits.node, blame):
        head = _head(found, order, tell)
    return FoldedNetwork(spec, stem, tuple(layers), head, rounded=False)


def _stem(found: Chain, tell: Tell) -> tuple[FoldedStem, tuple[int, ...]]:
    """Returns the stem and the bytes that its image is padded with."""
    pixels, steps = found.stem.pixels, found.steps
    table = pixels.table
    slope = (table[:, -1] - table[:, 0]) / 255
    line = table[:, :1] + slope[:, None] * np.arange(256)
    off = np.abs(table - line) / np.where(slope, np.abs(slope), 1.0)[:, None]
    if not slope.all() or off.max() > LINEAR:
        raise Unsupported(
            f"takes pixels that are not proportional to their bytes: they are off by "
            f"{off.max():.3g} of a step; leave out what rounds or bends the image"
        )
    assert pixels.pad is not None
    real = (pixels.pad - table[:, 0]) / slope
    pad = tuple(int(byte) for byte in np.round(real))
    told = ", ".join(f"{byte:.5g}" for byte in real)
    if min(pad) < 0 or max(pad) > 255:
        raise Unsupported(
            f"pads the image with {pixels.pad:g}, which is byte {told}; a padded pixel is a byte "
            f"from 0 to 255"
        )
    if np.abs(real - pad).max() > LINEAR:
        rounded = ", ".join(map(str, pad))
        tell(f"stem: padded pixels are byte {told}, rounded to {rounded}")
    weights = found.stem.weights * slope[None, :, None, None]
    middle = table[:, 0] + 128 * slope
    bias = found.stem.bias + (found.stem.weights * middle[None, :, None, None]).sum((1, 2, 3))
    numbers, unit = _rounded("stem", weights, True, tell)
    taps = np.ascontiguousarray(numbers.transpose(0, 2, 3, 1))
    gain, offset = steps.gain * unit, steps.gain * bias + steps.offset
    return FoldedStem(taps, gain, offset, steps.activation), pad


def _rounded(name: str, weights: np.ndarray, rows: bool, tell: Tell) -> tuple[np.ndarray, Any]:
    numbers, unit = whole(weights, rows=rows)
    step = unit.reshape(-1, *(1,) * (weights.ndim - 1))
    lost = np.abs(numbers * step - weights).max() / np.abs(weights).max(initial=1e-300)
    if lost > LINEAR:
        tell(f"{name}: weights are rounded to 8 bits, by up to {100 * lost:.2g} % of the greatest")
    return numbers, unit


def _spec(
    found: Chain, stem: FoldedStem, pad: tuple[int, ...], formats: NumberFormats
) -> NetworkSpec:
    kind = _kind(found)
    wanted = [_methods(part, kind) for part in found.parts]
    common = {
        name: Counter(each[name] for each in wanted if name in each).most_common(1)[0][0]
        for name in dict.fromkeys(name for each in wanted for name in each)
    }
    if any((part.levels != 0).any() for part in found.parts):
        common["feature_binarizer"] = "rsign"
    repairs = [Repair(**cast(dict[str, Any], common | each)) for each in wanted]
    repair = Counter(repairs).most_common(1)[0][0]
    layers, stage, channels = [], 0, len(stem.gain)
    names = layer_names([part.node for part in found.parts])
    for at, (part, own) in enumerate(zip(found.parts, repairs, strict=True)):
        out, inside = part.convolved.weights.shape[:2]
        stride = part.convolved.stride
        stage += bool(at) and (stride > 1 or out != channels)
        layers.append(
            Layer(
                names[at], inside, out, stride, part.shortcut is not None, stage,
                None if own == repair else own,
            )
        )  # fmt: skip
        channels = out
    colours, height, width = found.stem.pixels.shape
    borders = any(part.binary.border is not None for part in found.parts)
    return NetworkSpec(
        input=(height, width, colours), classes=len(found.logits.bias), layers=tuple(layers),
        repair=repair, formats=formats, pad=() if {*pad} == {128} else pad,
        stem_activation="none" if stem.activation is None else kind,
        adabin_padding="zero" if borders else "centre",
    )  # fmt: skip


def layer_names(nodes: Sequence[str]) -> list[str]:
    """Returns a name for each node's layer: its module's path, as TorchScript's exporter has it.

    /blocks/blocks.0/conv/Conv is blocks.0.conv. A name that is not its own gets its place.
    """
    names = []
    for node in nodes:
        path: list[str] = []
        for part in node.strip("/").removesuffix("/Conv").split("/"):
            if path and part.startswith(f"{path[-1]}."):
                path.pop()
            path.append(re.sub(r"[^A-Za-z0-9_.-]+", "_", part))
        names.append(".".join(path)[-LONGEST:])
    reserved = ("", "stem", "head", "input", "class")
    own = [names.count(name) == 1 and name not in reserved for name in names]
    return [name if own[at] else f"{name or 'layer'}_{at}" for at, name in enumerate(names)]


def _activation(part: Part) -> FoldedActivation | None:
    if part.after is None or part.after.identity:
        return part.branch.activation
    return part.after.function()


def _kind(found: Chain) -> str:
    """The least general activation that all are of."""
    acts = [found.steps.activation, *(_activation(part) for part in found.parts)]
    some = [act for act in acts if act is not None]
    if any((act.positive != 1).any() for act in some):
        return "maxout"
    return "rprelu" if any(act.shift_in.any() or act.shift_out.any() for act in some) else "prelu"


def _methods(part: Part, kind: str) -> dict[str, str]:
    """What of a Repair matters to this layer."""
    found = part.binary
    sets = found.mean.any() or found.border is not None
    methods = dict(
        binary_sets="adabin" if sets else "symmetric",
        padding="minus-one" if found.minus_one else "zero",
        activation="none" if _activation(part) is None else kind,
    )
    if part.branch.activation is not None and part.shortcut is not None:
        methods["activation_position"] = "before-add"
    elif methods["activation"] != "none":
        methods["activation_position"] = "after-add"
    root = None if part.shortcut is None else part.shortcut.root
    if isinstance(root, Moved) and root.strides != (1, 1):
        methods["downsample"] = "avgpool-duplicate" if root.kind == "average" else "pad"
        if root.weights is not None:
            methods["downsample"] = "conv1x1-8bit" if root.bits is None else "conv1x1-binary"
    return methods


def _layer(
    part: Part, repair: Repair, inside: np.ndarray, out: np.ndarray,
    shortcut: FoldedShortcut | None, *, zero: bool,
) -> Folded:  # fmt: skip
    """inside, out : at each of our channels, which of theirs it is."""
    found, branch = part.binary, part.branch
    turned = np.where(part.falls, -1, 1).astype(np.int8)[inside]
    signs = np.ascontiguousarray(found.signs[out][..., inside] * turned)
    gain = branch.gain[out]
    terms, border = [Term(signs, gain * found.gain[out], 0)], None
    if repair.binary_sets == "adabin":
        shared = np.broadcast_to(turned, (1, 3, 3, len(inside)))
        terms.append(Term(np.ascontiguousarray(shared), gain * found.mean[out], 0))
        if zero:
            given = found.border
            border = np.zeros((3, 3, len(out))) if given is None else given[..., out] * gain
    act = _activation(part)
    if act is not None:
        fields = ("shift_in", "positive", "negative", "shift_out")
        act = FoldedActivation(*(getattr(act, name)[out] for name in fields))
    offset = gain * found.offset[out] + branch.offset[out]
    levels = part.levels[inside][None]
    return Folded(levels, tuple(terms), offset, None, act, None, shortcut, border)


def _shortcut(
    part: Part, given: Real, shape: Convolution, stream: np.ndarray
) -> tuple[np.ndarray, FoldedShortcut | None]:
    """Returns which of their channels each of ours is, and the shortcut's own numbers.

    stream : the same of the stream that is added.
    """
    root, step = given.root, shape.shortcut_stride
    if not isinstance(root, Moved):
        return stream, None
    if root.strides != (step, step):
        raise Unsupported(f"adds a shortcut of strides {root.strides}, must be of {step}")
    steps = reduced(given.steps, shape.out_channels)
    if root.weights is not None:
        if step == 1 or steps.activation is not None or root.bias is None:
            raise Unsupported(
                "adds a 1x1 convolution, which must be of stride 2, without activation"
            )
        gain, offset = steps.gain, steps.gain * root.bias + steps.offset
        made = _convolved(part, root, root.weights[:, stream], gain, offset)
        return np.arange(shape.out_channels), made
    if not steps.identity:
        raise Unsupported("adds a shortcut that is scaled or bent on its way")
    wanted = np.full(shape.out_channels, -1)
    if root.kind == "average":
        wanted = stream[np.arange(shape.out_channels) % len(stream)]
    else:
        front = shape.shortcut_offset
        wanted[front : front + len(stream)] = stream
    return _placed(root.source, wanted), None


def _placed(source: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns an order of channels in which each takes what is wanted."""
    free: dict[int, list[int]] = {}
    for at, taken in enumerate(source):
        free.setdefault(int(taken), []).append(at)
    order = []
    for each in wanted:
        if not free.get(int(each)):
            missing = "a channel of 0" if each < 0 else f"channel {each} of the stream"
            raise Unsupported(f"adds a shortcut that lacks {missing}, which ours has there")
        order.append(free[int(each)].pop(0))
    return np.array(order)


def _convolved(
    part: Part, root: Moved, weights: np.ndarray, gain: np.ndarray, offset: np.ndarray
) -> FoldedShortcut:
    if root.bits is None:
        numbers, unit = whole(weights, rows=True)
        return FoldedShortcut(numbers, gain * unit, offset, binary=False)
    bits = root.bits
    if bits.level.any() or bits.map.steps != root.stream.steps or (bits.low != -bits.high).any():
        raise Unsupported("adds a 1x1 convolution of bits that are not the signs of the stream")
    signs, scale, mean = two_valued((weights * bits.high)[:, :, None, None])
    if mean.any():
        raise Unsupported("adds a 1x1 convolution whose weights have a centre")
    return FoldedShortcut(signs[:, 0, 0], gain * scale, offset, binary=True)


def _head(found: Chain, order: np.ndarray, tell: Tell) -> FoldedHead:
    weights = found.logits.weights[:, order]
    if not weights.any():
        raise Unsupported("all its weights are 0")
    numbers, unit = _rounded("head", weights, False, tell)
    return FoldedHead(numbers, float(unit[0]), found.logits.bias)
