"""An ONNX graph, written node by node; every tensor has its shape and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from bnnhw.errors import UserError

QONNX = "qonnx.custom_op.general"
OPSET = 17
IR_VERSION = 9
EXTRA = "pip install 'bnnhw[qonnx]'"


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph. wide : whether its numbers are float64, else float32."""

    name: str
    shape: tuple[int, ...]
    wide: bool

    @property
    def dtype(self) -> type:
        return np.float64 if self.wide else np.float32


class Builder:
    """Nodes and constants. Raises UserError where onnx is not installed."""

    def __init__(self) -> None:
        try:
            self._onnx = import_module("onnx")
        except ModuleNotFoundError as error:
            raise UserError(f"QONNX files need {error.name}, which is not here; {EXTRA}") from None
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._initializers: list[Any] = []
        self._infos: dict[str, Any] = {}
        self._annotations: list[Any] = []

    def _kind(self, dtype: Any) -> int:
        kind: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return kind

    def info(self, tensor: Tensor) -> Any:
        """Returns the tensor's name, type and shape, as ONNX has them."""
        make = self._onnx.helper.make_tensor_value_info
        return make(tensor.name, self._kind(tensor.dtype), tensor.shape)

    def constant(self, array: Any, dtype: Any = np.float32) -> Tensor:
        """Returns a constant, one for all that are alike."""
        given = np.ascontiguousarray(array, dtype)
        key = (given.dtype.str, given.shape, given.tobytes())
        if key not in self._constants:
            name = f"constant{len(self._constants)}"
            self._initializers.append(self._onnx.numpy_helper.from_array(given, name))
            self._constants[key] = Tensor(name, given.shape, given.dtype == np.float64)
        return self._constants[key]

    def emit(
        self, op: str, inputs: Sequence[Tensor], shape: tuple[int, ...], *, name: str = "",
        domain: str = "", wide: bool | None = None, datatype: str = "", boolean: bool = False,
        **attributes: Any,
    ) -> Tensor:  # fmt: skip
        """Returns the output of one node.

        name : of the output, its own number without. wide : as the first input where it is None.
        datatype : QONNX's name of what a float32 tensor holds. boolean : whether it holds truths.
        """
        number = len(self._nodes)
        made = Tensor(name or f"x{number}", shape, inputs[0].wide if wide is None else wide)
        if made.name in self._infos:
            raise ValueError(f"{made.name} is made twice")
        node = self._onnx.helper.make_node(
            op, [each.name for each in inputs], [made.name], f"{op}_{number}", domain=domain,
            **attributes,
        )  # fmt: skip
        self._nodes.append(node)
        self._infos[made.name] = self.info(made)
        if boolean:
            make = self._onnx.helper.make_tensor_value_info
            self._infos[made.name] = make(made.name, self._onnx.TensorProto.BOOL, shape)
        if datatype:
            self.annotate(made, datatype)
        return made

    def annotate(self, tensor: Tensor, datatype: str) -> None:
        """Says what integers a float32 tensor holds, as qonnx does."""
        entry = self._onnx.StringStringEntryProto(key="finn_datatype", value=datatype)
        self._annotations.append(
            self._onnx.TensorAnnotation(
                tensor_name=tensor.name, quant_parameter_tensor_names=[entry]
            )
        )

    def model(self, image: Tensor, output: Tensor, properties: dict[str, str]) -> Any:
        """Returns the onnx.ModelProto."""
        helper = self._onnx.helper
        result = self._infos.pop(output.name)
        graph = helper.make_graph(
            self._nodes, "bnnhw", [self.info(image)], [result], self._initializers,
            value_info=[*self._infos.values()],
        )  # fmt: skip
        graph.quantization_annotation.extend(self._annotations)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(QONNX, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="bnnhw")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, properties)
        self._onnx.checker.check_model(model)
        return model
