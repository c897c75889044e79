"""bnnhw: from a trained binary ResNet to a verified bitstream.

The names below are the library; `bnnhw.flow.stages` documents them. Each is imported when it is
first asked for. `python -m bnnhw` and `bnnhw` are the command.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnnhw.errors import UserError
    from bnnhw.flow.core import make_core
    from bnnhw.flow.stages import (
        Design,
        Implementation,
        Model,
        board,
        implement,
        load,
        lower,
        make_plan,
        prove,
        write_design,
    )

    __version__: str

if os.path.basename(sys.argv[0]) in ("-m", "bnnhw"):  # this process is to be the command
    import_module("bnnhw.quiet").end_at_signals()

__all__ = [
    "Design",
    "Implementation",
    "Model",
    "UserError",
    "__version__",
    "board",
    "implement",
    "load",
    "lower",
    "make_core",
    "make_plan",
    "prove",
    "write_design",
]


ROOMS = {"UserError": "bnnhw.errors", "make_core": "bnnhw.flow.core"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("bnnhw")
    if name not in __all__:
        raise AttributeError(f"module 'bnnhw' has no attribute {name!r}")
    room = ROOMS.get(name, "bnnhw.flow.stages")
    return getattr(import_module(room), name)


def __dir__() -> list[str]:
    return __all__
