"""Counts, in the simulation of a netlist, how often each of its nets changes.

The netlist gets a block that hands its nets to models/toggles.cpp in every cycle that counts. A
net is looked at once a cycle: what changes twice within one is not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnhw.sim.runner import HERE

PROGRAM = HERE / "models" / "toggles.cpp"
GROUP = 64  # nets that are handed over at a time
KINDS = ("changed", "high")


@dataclass(frozen=True)
class Counts:
    """cycles : that counted. changed, high : for each net that was named, the cycles in which it
    was another than in the cycle before, and those in which it was 1."""

    cycles: int
    changed: list[int]
    high: list[int]


def instrumented(
    netlist: str, *, clock: str, counting: str, changed: Sequence[str], high: Sequence[str] = ()
) -> str:
    """Returns the Verilog of a netlist of one module, with the block that counts.

    All are expressions of one bit that are valid in the module. clock : whose rising edges are
    cycles. counting : whether a cycle counts; there is no change in the first of a run of them.
    changed, high : sequences of what is counted.
    """
    body, end, rest = netlist.rpartition("endmodule")
    lines = [
        '  import "DPI-C" function void toggles_cycle(input int cycle);',
        '  import "DPI-C" function void toggles_write();',
        *(f'  import "DPI-C" function void toggles_{kind}(input int group, input longint bits);'
          for kind in KINDS),
        "  integer toggles_now = 0;",
        f"  always @(posedge {clock}) begin",
        "    toggles_now <= toggles_now + 1;",
        f"    if ({counting}) begin",
        "      toggles_cycle(toggles_now);",
        *_calls(KINDS[0], changed),
        *_calls(KINDS[1], high),
        "    end",
        "  end",
        "  final toggles_write();",
    ]  # fmt: skip
    return body + "\n".join([*lines, end]) + rest


def _calls(kind: str, bits: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(bits), GROUP):
        group = ", ".join(reversed(bits[start : start + GROUP]))
        yield f"      toggles_{kind}({start // GROUP}, {{{group}}});"


def read_counts(folder: Path, *, changed: int, high: int = 0) -> Counts:
    """Returns what a simulation in `folder` has left of so many expressions."""
    lines = (folder / "toggles.txt").read_text().splitlines()
    cycles, *found = [[int(word) for word in line.split()] for line in lines]
    return Counts(cycles[0], found[0][:changed], found[1][:high])
