"""QONNX files -> FoldedNetwork.

The graph is walked once. Each tensor becomes what it means to a network (bnnhw.importers.values),
and the logits lead back to all layers. docs/import.md lists the operations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bnnhw.errors import UserError
from bnnhw.importers.assemble import Tell, assemble
from bnnhw.importers.chain import Blame, blaming, chain
from bnnhw.importers.graph import Graph, from_model, read
from bnnhw.importers.maps import OPERATORS
from bnnhw.importers.values import Constant, Logits, Pixels, Unsupported, Value
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.spec import NumberFormats


def import_qonnx(
    source: Any, *, formats: NumberFormats | None = None, mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (), tell: Tell = lambda line: None,
) -> FoldedNetwork:  # fmt: skip
    """Returns the network of a QONNX file, or of an onnx.ModelProto that is in memory.

    formats : of the integers; the file has none. mean, std : of each colour; the file's input is
    (byte / 255 - mean) / std, or (byte - 128) / 64 without them. tell : gets a sentence about
    everything that is rounded.
    Raises UserError that names the operation and its neighbours.
    """
    in_file = isinstance(source, str | Path)
    graph = read(Path(source)) if in_file else from_model(source)
    where = f"{source}: " if in_file else ""
    places = {node.name: graph.place(node) for node in graph.nodes}

    def blame(node: str) -> str:
        return where + places.get(node, node)

    logits = _walk(graph, mean, std, blame)
    return assemble(chain(logits, blame), formats or NumberFormats(), blame, tell)


def pixels(shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> Pixels:
    """Returns the image (1, C, H, W) of a normalisation, as import_qonnx says it."""
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        raise UserError(f"the input is of shape {shape}; must be images, (N, C, H, W)")
    colours = shape[1]
    for what, values in (("mean", mean), ("std", std)):
        if values and len(values) != colours:
            raise UserError(f"{what}={values}: give one for each of {colours} colours")
    if bool(mean) != bool(std):
        raise UserError(f"mean={mean}, std={std}: give both or none of them")
    if not all(np.isfinite([*mean, *std])) or not all(each > 0 for each in std):
        raise UserError(f"mean={mean}, std={std}: must be finite, std above 0")
    centre = 255 * np.array(mean) if mean else np.full(colours, 128.0)
    unit = 1 / (255 * np.array(std)) if std else np.full(colours, 1 / 64)
    table = (np.arange(256) - centre[:, None]) * unit[:, None]
    return Pixels((colours, shape[2], shape[3]), table)


def _walk(graph: Graph, mean: tuple[float, ...], std: tuple[float, ...], blame: Blame) -> Logits:
    """Returns what the output is."""
    values: dict[str, Value] = {name: Constant(array) for name, array in graph.constants.items()}
    values[""] = Constant(np.zeros(0))
    values[graph.input] = pixels(graph.shapes[graph.input], mean, std)
    for node in graph.nodes:
        with blaming(node.name, blame):
            if node.op not in OPERATORS:
                raise Unsupported("is understood of constants alone")
            if len([name for name in node.outputs if name]) != 1:
                raise Unsupported("has several outputs")
            try:
                given = [values[name] for name in node.inputs]
                values[node.outputs[0]] = OPERATORS[node.op](node, given)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise Unsupported(f"has inputs or attributes that do not fit: {error}") from None
    output = values.get(graph.output)
    if not isinstance(output, Logits):
        raise UserError(
            f"{blame('')}the output {graph.output} is not a linear layer of the means of a map"
        )
    return output
