"""A QONNX file -> plain nodes and arrays, which know nothing of ONNX any more.

A file is data, and stays so. Its operations are looked through before anything is done with them:
qonnx would import the Python module that an operation's domain names. Weights outside of the file
must lie in its folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw.errors import UserError

DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
ONNX_OPS = (  # those of maps, and those of constants alone
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "Div", "Dropout", "Equal", "Exp", "Flatten", "Floor",
    "Gather", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pad", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sign", "Slice", "Sqrt",
    "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
QONNX_OPS = ("BipolarQuant", "IntQuant", "MultiThreshold", "Quant")
LARGEST = 1 << 26  # values of one tensor
FILE_LIMIT = 1 << 31  # bytes, of a file and of the weights beside it
EXTRA = "pip install 'bnnhw[qonnx]'"


@dataclass(frozen=True)
class Node:
    """One operation. attributes : numbers, texts and lists of them. inputs : "" is left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name} ({self.op})"


@dataclass(frozen=True)
class Graph:
    """Nodes in order of execution, constants by tensor, shapes of what is neither.

    input, output : the tensors of the only one of each. shapes : batch first, which is 1.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    input: str
    output: str

    def place(self, node: Node) -> str:
        """Returns the node with those before and after it."""
        made = {name: other for other in self.nodes for name in other.outputs}
        before = [str(made[name]) for name in node.inputs if name in made]
        after = [str(each) for each in self.nodes if {*each.inputs} & {*node.outputs}]
        return (
            f"node {node}, after {', '.join(before) or 'the input'}, before "
            f"{', '.join(after) or 'the output'}"
        )


def needed(module: str) -> Any:
    """Returns a module of the extra. Raises UserError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"QONNX files need {error.name}, which is not here; {EXTRA}") from None


def read(path: Path) -> Graph:
    """Returns the graph of a file, cleaned up by qonnx. Raises UserError that names what is odd."""
    onnx = needed("onnx")
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise UserError(f"{path}: is larger than {FILE_LIMIT} bytes")
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a readable file") from None
    except UserError:
        raise
    except Exception:  # protobuf has many kinds of errors
        raise UserError(f"{path}: damaged or not an ONNX file; export it anew") from None
    try:
        _take_outside(onnx, model, path)
        return from_model(model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_model(model: Any) -> Graph:
    """Returns the graph of an onnx.ModelProto, all of whose weights are in it."""
    onnx, general = needed("onnx"), needed("qonnx.transformation.general")
    _look_through(onnx, model)
    wrapper = needed("qonnx.core.modelwrapper").ModelWrapper
    folding = needed("qonnx.transformation.fold_constants")
    shapes = needed("qonnx.transformation.infer_shapes").InferShapes
    for node in model.graph.node:
        if node.op_type in QONNX_OPS:
            node.domain = "qonnx.custom_op.general"
    for given in _variables(model.graph):
        if given.type.tensor_type.shape.dim:
            first = given.type.tensor_type.shape.dim[0]
            first.dim_value = first.dim_value if first.HasField("dim_value") else 1
    try:
        with warnings.catch_warnings(), _quiet_runtime():
            warnings.simplefilter("ignore")
            whole = wrapper(model).transform(shapes())
            _check_sizes(whole)
            for step in (
                general.GiveUniqueParameterTensors(), folding.FoldConstants(exclude_op_types=[]),
                general.RemoveUnusedTensors(), general.RemoveStaticGraphInputs(),
                general.SortGraph(), shapes(),
            ):  # fmt: skip
                whole = whole.transform(step)
            return _plain(onnx, whole)
    except UserError:
        raise
    except Exception as error:  # onnx, onnxruntime and qonnx have many kinds of errors
        first = str(error).strip().splitlines()[:1]
        raise UserError(
            f"qonnx cannot clean it up: {type(error).__name__}: {' '.join(first)}"
        ) from None


@contextmanager
def _quiet_runtime() -> Iterator[None]:
    """ONNX Runtime, which qonnx folds constants with, prints nothing: it raises what it says."""
    runtime = needed("onnxruntime")
    runtime.set_default_logger_severity(4)
    try:
        yield
    finally:
        runtime.set_default_logger_severity(2)  # as it begins


def _variables(graph: Any) -> list[Any]:
    """The inputs that are no weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def _tensors(onnx: Any, graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for part in node.attribute:
            if part.type == onnx.AttributeProto.TENSOR:
                yield part.t


def _take_outside(onnx: Any, model: Any, path: Path) -> None:
    """Reads weights that lie in other files of the folder."""
    folder = path.resolve().parent
    for tensor in _tensors(onnx, model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        given = {entry.key: entry.value for entry in tensor.external_data}
        location = given.get("location", "")
        place = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not place.is_relative_to(folder):
            raise UserError(
                f"{tensor.name}: its weights are in {location!r}, outside of the file's folder; "
                f"refused"
            )
        if not place.is_file():
            raise UserError(f"{tensor.name}: its weights are in {location!r}, which is no file")
        if place.stat().st_size > FILE_LIMIT:
            raise UserError(f"{location}: is larger than {FILE_LIMIT} bytes")
        try:
            start, size = int(given.get("offset", 0)), int(given.get("length", -1))
            with place.open("rb") as file:
                file.seek(start)
                data = file.read(size if size >= 0 else -1)
        except (OSError, ValueError) as error:
            raise UserError(f"{tensor.name}: {location}: {error}") from None
        if size >= 0 and len(data) != size:
            raise UserError(f"{tensor.name}: {location} ends before its weights do; copy it anew")
        tensor.raw_data = data
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _look_through(onnx: Any, model: Any) -> None:
    """Raises UserError unless all operations are known by name and all weights are at hand."""
    if model.graph.sparse_initializer:
        raise UserError("sparse weights are not understood; export dense ones")
    for tensor in _tensors(onnx, model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{tensor.name}: its weights are in another file; give the file's path")
    if model.functions:
        raise UserError(
            f"function {model.functions[0].name}: functions are not understood; export with "
            f"optimize=True"
        )
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        known = QONNX_OPS if node.domain in DOMAINS[2:] else ONNX_OPS
        odd = any(part.type not in _plain_kinds(onnx) for part in node.attribute)
        if node.domain not in DOMAINS or node.op_type not in known or odd:
            before = [made[name] for name in node.input if name in made]
            after = [each for each in graph.node if {*each.input} & {*node.output}]
            raise UserError(
                f"node {_named(node)}, after {', '.join(map(_named, before)) or 'the input'}, "
                f"before {', '.join(map(_named, after)) or 'the output'}: is not understood; "
                f"docs/import.md lists what is"
            )
    if len(_variables(graph)) != 1 or len(graph.output) != 1:
        raise UserError(
            f"has {len(_variables(graph))} inputs and {len(graph.output)} outputs; must have one "
            f"of each, images and logits"
        )


def _plain_kinds(onnx: Any) -> tuple[int, ...]:
    """What attributes may be: no graphs, and no tensors but one of its own."""
    kinds = onnx.AttributeProto
    return (kinds.FLOAT, kinds.INT, kinds.STRING, kinds.TENSOR, kinds.FLOATS, kinds.INTS,
            kinds.STRINGS)  # fmt: skip


def _named(node: Any) -> str:
    domain = f"{node.domain}." if node.domain not in DOMAINS else ""
    return f"{node.name or (node.output[0] if node.output else '?')} ({domain}{node.op_type})"


def _check_sizes(model: Any) -> None:
    """Raises UserError where a tensor is larger than any of ours can be."""
    graph = model.graph
    for tensor in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        if hasattr(tensor, "dims"):
            size = np.prod([float(each) for each in tensor.dims])
        else:
            dims = tensor.type.tensor_type.shape.dim
            size = np.prod([float(max(each.dim_value, 1)) for each in dims])
        if size > LARGEST:
            raise UserError(f"tensor {tensor.name}: has {size:.0f} values, more than {LARGEST}")
    values = {node.output[0]: node.attribute[0].t for node in graph.node if _is_value(node)}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            given = model.get_initializer(node.input[0])
            if given is None and node.input[0] in values:
                given = needed("onnx").numpy_helper.to_array(values[node.input[0]])
            if given is None or np.prod(given, dtype=float) > LARGEST:
                raise UserError(f"node {_named(node)}: its size must be constant and small")


def _is_value(node: Any) -> bool:
    return node.op_type == "Constant" and [part.name for part in node.attribute] == ["value"]


def _plain(onnx: Any, model: Any) -> Graph:
    graph = model.graph
    nodes = []
    for node in graph.node:
        parts = {part.name: onnx.helper.get_attribute_value(part) for part in node.attribute}
        attributes = {
            name: part.decode() if isinstance(part, bytes) else part for name, part in parts.items()
        }
        name = node.name or node.output[0]
        nodes.append(Node(name, node.op_type, tuple(node.input), tuple(node.output), attributes))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    shapes = {}
    for tensor in (*graph.input, *graph.value_info, *graph.output):
        shapes[tensor.name] = tuple(d.dim_value for d in tensor.type.tensor_type.shape.dim)
    return Graph(tuple(nodes), constants, shapes, _variables(graph)[0].name, graph.output[0].name)
