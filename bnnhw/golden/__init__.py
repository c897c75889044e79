"""The golden model: runs an integer network exactly, every tensor by name."""

from bnnhw.golden.execute import BATCH, run, tap_names
from bnnhw.golden.streams import Stream, advice, streams

__all__ = ["BATCH", "Stream", "advice", "run", "streams", "tap_names"]
