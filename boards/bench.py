"""How a board's top stands in sim/board_bench.v, in plain words: for simulations."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Models:
    """Verilog of a family's primitives.

    file : in sim/models/. library : in Yosys's share folder, if the family has one there.
    replaced : modules of the library that `file` has in their stead. define : a macro under which
    the library is read.
    """

    file: str
    library: str | None = None
    replaced: tuple[str, ...] = ()
    define: str | None = None


@dataclass(frozen=True)
class Bench:
    """A board's top in the bench.

    ports : {port of the top: net of the bench that it is connected to, "" for none}.
    low : LEDs, of ready, busy and error, that 0 lights.
    quad : whether the flash is used with four wires.
    flash_clock : the net of the flash's clock in the top, where no pin has it; else None.
    """

    models: Models
    ports: Mapping[str, str]
    low: frozenset[str]
    flash_clock: str | None
    quad: bool = False
