"""Networks trained elsewhere -> FoldedNetwork."""

from bnnhw.importers.state_dict import import_state_dict

__all__ = ["import_state_dict"]
