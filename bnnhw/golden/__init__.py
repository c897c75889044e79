"""The golden model: runs an integer network exactly, every tensor by name."""

from bnnhw.golden.execute import BATCH, run, tap_names

__all__ = ["BATCH", "run", "tap_names"]
