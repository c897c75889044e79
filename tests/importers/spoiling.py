"""Small random changes of an ONNX graph, of the kind that a broken exporter or a hand leaves."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import AttributeProto, numpy_helper

from bnnhw.importers.graph import ONNX_OPS

INTEGERS = (0, 1, 2, 3, -1, 5, 100, 2**31)
FLOATS = (0.0, -1.0, 3.0, float("nan"), float("inf"), 1e30)
TEXTS = (b"", b"reflect", b"edge", b"FLOOR", b"x")


def attribute(node: onnx.NodeProto, rng: Random) -> None:
    """One number or text of it, or it is gone."""
    part = rng.choice(node.attribute)
    if rng.random() < 0.3:
        node.attribute.remove(part)
    elif part.type == AttributeProto.INTS and part.ints:
        part.ints[rng.randrange(len(part.ints))] = rng.choice(INTEGERS)
    elif part.type == AttributeProto.INT:
        part.i = rng.choice(INTEGERS)
    elif part.type == AttributeProto.FLOAT:
        part.f = rng.choice(FLOATS)
    elif part.type == AttributeProto.STRING:
        part.s = rng.choice(TEXTS)


def values(graph: onnx.GraphProto, rng: Random) -> None:
    """One value of a constant, or its shape."""
    tensor = rng.choice(graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    if array.size and rng.random() < 0.6:
        some = INTEGERS if array.dtype.kind == "i" else FLOATS
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice(some)
    else:
        flat = array.reshape(-1)
        shapes = flat, array[None], np.repeat(array[None], 2, 0), flat[: max(0, array.size - 1)]
        array = np.ascontiguousarray(rng.choice(shapes))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def edge(graph: onnx.GraphProto, node: onnx.NodeProto, rng: Random) -> None:
    """An input of a node is another tensor, or gone."""
    at = rng.randrange(len(node.input))
    if rng.random() < 0.3:
        del node.input[at]
        return
    made = [name for each in graph.node for name in each.output]
    node.input[at] = rng.choice([*(each.name for each in graph.initializer), *made])


def move(graph: onnx.GraphProto, node: onnx.NodeProto, rng: Random) -> None:
    """The node is elsewhere in the list, or gone."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    graph.node.remove(node)
    if rng.random() < 0.5:
        graph.node.insert(rng.randrange(len(graph.node)), other)


def spoil(model: onnx.ModelProto, rng: Random) -> None:
    """One change, or up to three."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        graph, kind = model.graph, rng.randrange(6)
        node = rng.choice(graph.node)
        if kind == 0:
            node.op_type, node.domain = rng.choice(ONNX_OPS), ""
        elif kind in (1, 2) and node.attribute:
            attribute(node, rng)
        elif kind == 3 and node.input:
            edge(graph, node, rng)
        elif kind == 4:
            values(graph, rng)
        elif kind == 5:
            move(graph, node, rng)
