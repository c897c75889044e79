"""Modules of Brevitas -> FoldedNetwork, by way of QONNX in memory."""

from __future__ import annotations

from typing import Any

from bnnhw.errors import UserError
from bnnhw.importers.assemble import Tell
from bnnhw.importers.graph import needed
from bnnhw.importers.qonnx import import_qonnx
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.spec import NumberFormats


def import_brevitas(
    module: Any, shape: tuple[int, int, int], *, formats: NumberFormats | None = None,
    mean: tuple[float, ...] = (), std: tuple[float, ...] = (), tell: Tell = lambda line: None,
) -> FoldedNetwork:  # fmt: skip
    """Returns the network of an nn.Module of Brevitas's and PyTorch's layers.

    shape : (height, width, channels) of the image; the module takes it as float (1, C, H, W).
    All else is as import_qonnx has it. The module is as before afterwards.
    """
    export = needed("brevitas.export").export_qonnx
    needed("onnxoptimizer")
    height, width, channels = shape
    try:
        model = export(module, input_shape=(1, channels, height, width), dynamo=False)
    except UserError:
        raise
    except Exception as error:  # whatever a foreign module does
        lines = str(error).strip().splitlines() or [""]
        kind = type(error).__name__
        raise UserError(
            f"{type(module).__name__}: Brevitas cannot export it: {kind}: {lines[0]}"
        ) from None
    return import_qonnx(model, formats=formats, mean=mean, std=std, tell=tell)
