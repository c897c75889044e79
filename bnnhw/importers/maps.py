"""The operations of ONNX that change a tensor's shape: convolutions, shortcuts, means, the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnhw.importers.bits import BITS
from bnnhw.importers.graph import Node
from bnnhw.importers.operators import ELEMENTWISE, Operator, add, array, integers
from bnnhw.importers.values import (
    Bits,
    Constant,
    Convolved,
    Logits,
    Means,
    Moved,
    Pixels,
    Real,
    Stem,
    Sum,
    Unsupported,
    Value,
)

SPATIAL = ({2, 3}, {-2, -1})


def _window(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, int], int, list[int]]:
    """Returns kernel, stride and pads of a convolution or pooling."""
    parts = node.attributes
    if parts.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unsupported(f"auto_pad={parts['auto_pad']}: export with explicit pads")
    if any(each != 1 for each in parts.get("dilations", [1, 1])):
        raise Unsupported(f"dilations={parts['dilations']}: must be 1")
    if parts.get("group", 1) != 1:
        raise Unsupported(f"group={parts['group']}: must be 1")
    kernel = tuple(parts.get("kernel_shape", shape[2:]))
    strides = parts.get("strides", [1, 1])
    if len(kernel) != 2 or len(set(strides)) != 1:
        raise Unsupported(f"is of kernel {kernel}, strides {strides}; must be of two dimensions")
    return (kernel[0], kernel[1]), strides[0], list(parts.get("pads", [0, 0, 0, 0]))


def convolve(node: Node, values: list[Value]) -> Value:
    value, weights = values[0], array(values[1], "weights")
    kernel, stride, pads = _window(node, weights.shape)
    out = len(weights)
    bias = array(values[2], "bias") if len(values) > 2 else np.zeros(out)
    if weights.ndim != 4 or kernel != weights.shape[2:] or bias.shape != (out,):
        raise Unsupported(f"has weights of shape {weights.shape}, bias of shape {bias.shape}")
    if isinstance(value, Means):
        if kernel != (1, 1) or any(pads):
            raise Unsupported("takes means, so must be 1x1")
        return _head(node, value, weights[:, :, 0, 0], bias)
    if kernel == (1, 1) and not any(pads):
        return _shortcut(node, value, weights[:, :, 0, 0], bias, stride)
    if kernel != (3, 3) or stride not in (1, 2):
        raise Unsupported(f"is of kernel {kernel}, stride {stride}; must be 3x3 of stride 1 or 2")
    if not isinstance(value, Bits | Pixels):
        raise Unsupported("takes numbers, must take the image or bits: no binarizer is before it")
    if value.pad is None:
        if pads != [1, 1, 1, 1]:
            raise Unsupported(f"pads={pads}: must be 1 on all sides")
        value = replace(value, pad=0.0)
    elif any(pads):
        raise Unsupported("pads what is padded already")
    height, width = (-(-size // stride) for size in value.shape[1:])
    shape = (out, height, width)
    if isinstance(value, Bits):
        return Real(shape, Convolved(node.name, value, weights, bias, stride))
    if stride != 1:
        raise Unsupported("the first convolution must be of stride 1")
    return Real(shape, Stem(node.name, value, weights, bias))


def moved(node: Node, value: Value) -> Moved:
    """Returns a map as a shortcut, as it is where it is none yet."""
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    if isinstance(value.root, Moved):
        if value.steps or value.root.weights is not None:
            raise Unsupported("changes a shortcut that was computed with already")
        return value.root
    return Moved(node.name, value, "pad", (1, 1), np.arange(value.shape[0]))


def _strided(part: Moved, rows: int, columns: int) -> Moved:
    return replace(part, strides=(part.strides[0] * rows, part.strides[1] * columns))


def _as_map(part: Moved) -> Real:
    sizes = zip(part.stream.shape[1:], part.strides, strict=True)
    height, width = (-(-size // stride) for size, stride in sizes)
    channels = len(part.source) if part.weights is None else len(part.weights)
    return Real((channels, height, width), part)


def _shortcut(
    node: Node, value: Value, weights: np.ndarray, bias: np.ndarray, stride: int
) -> Value:
    """A 1x1 convolution of the stream, or of bits of it."""
    if isinstance(value, Bits):
        source = np.arange(value.shape[0])
        part = Moved(node.name, value.map, "pad", (1, 1), source, bits=value)
    else:
        part = moved(node, value)
        if part.kind != "pad" or not np.array_equal(part.source, np.arange(part.stream.shape[0])):
            raise Unsupported("is a 1x1 convolution of means or of padded channels")
    part = _strided(part, stride, stride)
    return _as_map(replace(part, node=node.name, weights=weights, bias=bias))


def subsample(node: Node, values: list[Value]) -> Value:
    """MaxPool of 1x1."""
    kernel, stride, pads = _window(node, ())
    if kernel != (1, 1) or any(pads):
        raise Unsupported("takes maxima")
    return _as_map(_strided(moved(node, values[0]), stride, stride))


def average(node: Node, values: list[Value]) -> Value:
    value = values[0]
    kernel, stride, pads = _window(node, ())
    if isinstance(value, Real) and kernel == value.shape[1:] and not any(pads):
        return _means(value, 1.0)
    if kernel == (1, 1):
        return subsample(node, values)
    part = moved(node, value)
    height, width = part.stream.shape[1:]
    if kernel != (2, 2) or stride != 2 or any(pads) or part.strides != (1, 1):
        raise Unsupported(f"is of kernel {kernel}, stride {stride}, pads {pads}; must be 2x2, 2, 0")
    odd = height % 2 or width % 2
    if odd and not node.attributes.get("ceil_mode", 0):
        raise Unsupported(f"leaves the last row or column of {height}x{width}; use ceil_mode")
    if odd and node.attributes.get("count_include_pad", 0):
        raise Unsupported("counts padded pixels at the edge; use count_include_pad=False")
    return _as_map(replace(part, kind="average", strides=(2, 2)))


def cut(node: Node, values: list[Value]) -> Value:
    """Slice: every other pixel from the first on, or some channels."""
    part = moved(node, values[0])
    shape = (1, *_as_map(part).shape)
    starts, ends = (integers(value, "places") for value in values[1:3])
    axes = integers(values[3], "axes") if len(values) > 3 else [*range(len(starts))]
    steps = integers(values[4], "steps") if len(values) > 4 else [1] * len(starts)
    strides = [1, 1, 1, 1]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis, size = axis % 4, shape[axis % 4]
        taken = range(size)[slice(start, end, step)]
        if axis == 1:
            part = replace(part, source=part.source[list(taken)])
        elif axis and taken == range(0, size, step):
            strides[axis] = step
        elif taken != range(size):
            raise Unsupported(f"takes {taken} of axis {axis}; must begin at 0 and go to the end")
    return _as_map(_strided(part, *strides[2:]))


def pad(node: Node, values: list[Value]) -> Value:
    value = values[0]
    if node.attributes.get("mode", "constant") != "constant":
        raise Unsupported(f"mode={node.attributes['mode']}: must be constant")
    given = integers(values[1], "pads") if len(values) > 1 else node.attributes["pads"]
    pads = np.array(given)
    if len(values) > 3 and not _missing(values[3]):
        full = np.zeros((2, 4), int)
        full[:, np.array(integers(values[3], "axes")) % 4] = pads.reshape(2, -1)
        pads = full.reshape(-1)
    constant = node.attributes.get("value", 0.0)
    if len(values) > 2 and not _missing(values[2]):
        constant = float(array(values[2], "value").reshape(-1)[0])
    begin, end = pads.reshape(2, -1).tolist()
    if begin == end == [0, 0, 1, 1] and isinstance(value, Bits | Pixels):
        if value.pad is not None:
            raise Unsupported("pads what is padded already")
        return replace(value, pad=constant)
    if begin[:1] + begin[2:] + end[:1] + end[2:] != [0] * 6 or constant or min(pads) < 0:
        raise Unsupported(f"pads={pads.tolist()} of {constant:g}: must be one pixel around bits or "
                          f"the image, or channels of 0")  # fmt: skip
    part = moved(node, value)
    source = np.concatenate([np.full(begin[1], -1), part.source, np.full(end[1], -1)])
    return _as_map(replace(part, source=source))


def _missing(value: Value) -> bool:
    return isinstance(value, Constant) and value.array.size == 0


def concatenate(node: Node, values: list[Value]) -> Value:
    """Channels of one stream, or channels of 0 beside it."""
    if node.attributes["axis"] not in (1, -3):
        raise Unsupported(f"axis={node.attributes['axis']}: must be that of channels")
    parts = [moved(node, value) for value in values if not isinstance(value, Constant)]
    if not parts:
        raise Unsupported("takes constants alone")
    first, sources = parts[0], []
    for value in values:
        if isinstance(value, Constant):
            if value.array.any() or value.array.ndim != 4:
                raise Unsupported("puts constants beside the stream that are not 0")
            sources.append(np.full(value.array.shape[1], -1))
            continue
        part = moved(node, value)
        alike = (part.kind, part.strides) == (first.kind, first.strides)
        streams = part.stream.root is first.stream.root and part.stream.steps == first.stream.steps
        if not alike or not streams:
            raise Unsupported("puts different maps beside each other")
        sources.append(part.source)
    return _as_map(replace(first, source=np.concatenate(sources)))


def _means(value: Value, gain: float) -> Value:
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    channels = value.shape[0]
    return Means(value, np.full(channels, gain), np.zeros(channels))


def _axes(node: Node, values: list[Value]) -> list[int]:
    if len(values) > 1:
        return integers(values[1], "axes")
    return list(node.attributes.get("axes", ()))


def mean(node: Node, values: list[Value]) -> Value:
    """Mean or sum over rows and columns."""
    axes = _axes(node, values)
    if {*axes} not in SPATIAL:
        raise Unsupported(f"axes={axes}: must be rows and columns, 2 and 3")
    value = values[0]
    size = value.shape[1] * value.shape[2] if isinstance(value, Real) else 1
    return _means(value, float(size) if node.op == "ReduceSum" else 1.0)


def flatten(node: Node, values: list[Value]) -> Value:
    """Of means and logits: they have no pixels that could change places."""
    if not isinstance(values[0], Means | Logits):
        raise Unsupported("must take means or logits: average the map first")
    return values[0]


def _head(node: Node, value: Means, weights: np.ndarray, bias: np.ndarray) -> Value:
    if weights.shape[1] != len(value.gain):
        raise Unsupported(f"takes {weights.shape[1]} means, there are {len(value.gain)}")
    return Logits(node.name, value.map, weights * value.gain, bias + weights @ value.offset)


def gemm(node: Node, values: list[Value]) -> Value:
    value, weights = values[0], array(values[1], "weights")
    parts = node.attributes
    if not isinstance(value, Means) or weights.ndim != 2 or parts.get("transA", 0):
        raise Unsupported("must be one linear layer of the means of a map")
    weights = weights if parts.get("transB", 0) else weights.T
    bias = np.zeros(len(weights))
    if len(values) > 2:
        bias = np.broadcast_to(array(values[2], "bias").reshape(-1), bias.shape)
    return _head(node, value, parts.get("alpha", 1.0) * weights, parts.get("beta", 1.0) * bias)


def matmul(node: Node, values: list[Value]) -> Value:
    weights = array(values[1], "weights")
    if not isinstance(values[0], Means) or weights.ndim != 2:
        raise Unsupported("must be one linear layer of the means of a map")
    return _head(node, values[0], weights.T, np.zeros(weights.shape[1]))


def add_any(node: Node, values: list[Value]) -> Value:
    """A constant, or a convolution of bits and the stream."""
    first, second = values
    if not (isinstance(first, Real) and isinstance(second, Real)):
        return add(node, values)
    if first.shape != second.shape:
        raise Unsupported(f"adds maps of shapes {first.shape} and {second.shape}")
    branches = [isinstance(value.root, Convolved) for value in (first, second)]
    if sum(branches) != 1:
        raise Unsupported(
            "adds two convolutions of bits" if all(branches) else
            "adds two maps of which none is a convolution of bits"
        )  # fmt: skip
    branch, shortcut = (first, second) if branches[0] else (second, first)
    return Real(first.shape, Sum(node.name, branch, shortcut))


OPERATORS: dict[str, Operator] = ELEMENTWISE | BITS | {
    "Add": add_any, "Conv": convolve, "Slice": cut, "Pad": pad, "Concat": concatenate,
    "MaxPool": subsample, "AveragePool": average, "GlobalAveragePool": lambda node, values:
    _means(values[0], 1.0), "ReduceMean": mean, "ReduceSum": mean, "Flatten": flatten,
    "Reshape": flatten, "Squeeze": flatten, "Unsqueeze": flatten, "Gemm": gemm, "MatMul": matmul,
}  # fmt: skip
