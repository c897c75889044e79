"""Networks trained elsewhere -> FoldedNetwork."""

from bnnhw.importers.brevitas import import_brevitas
from bnnhw.importers.qonnx import import_qonnx
from bnnhw.importers.state_dict import import_state_dict

__all__ = ["import_brevitas", "import_qonnx", "import_state_dict"]
