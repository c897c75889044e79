"""The golden model: runs an integer network exactly, every tensor by name."""

from bnnhw.golden.execute import run, tap_names

__all__ = ["run", "tap_names"]
