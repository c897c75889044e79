"""Integer networks -> files of other programs."""

from bnnhw.exporters.qonnx import export_qonnx

__all__ = ["export_qonnx"]
