"""Counts what a placed design does in an inference: its netlist runs, and every net is watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw import datasets, golden
from bnnhw.boards.support import BoardSupport
from bnnhw.cost.netlist import Netlist, read_netlist
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.flow.families import FAMILIES
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec
from bnnhw.sim.board_bench import run_board
from bnnhw.sim.runner import SimulationError, write_if_changed
from bnnhw.sim.toggles import PROGRAM, Counts, instrumented, read_counts


@dataclass(frozen=True)
class Activity:
    """What happens in one inference, on average over the images.

    cycles : from the first bit that the host sends to the last bit that it gets.
    loads : changes of nets; each counts once for its driver and once for every pin it drives.
    multiplier_inputs : changes of the multipliers' pins.
    flip_flops : how many the design has; not changes.
    ebr, spram : cycles with an access, summed over all memories of the kind.
    spram_writes : those of `spram` that write.
    """

    cycles: float
    loads: float
    multiplier_inputs: float
    flip_flops: int
    ebr: float
    spram: float
    spram_writes: float


def choose_images(
    spec: NetworkSpec, count: int, data: Path | None, resize: bool = False
) -> tuple[np.ndarray, str]:
    """Returns images uint8 (N, H, W, C), and a word for what they are.

    They are the first test images of `data`, which is resized if asked. Without it they are of
    digits if the network takes these, else random ones.
    """
    plural = "s" * (count > 1)
    if data is not None or datasets.SHAPES["digits"] == (spec.input, spec.classes):
        source = datasets.suiting(spec.input, spec.classes, data)
        images = source.fitting("test", spec.input, spec.classes, resize=resize)
        pixels = images.first(count).pixels
        return pixels, f"{len(pixels)} test image{plural} of {source.name}"
    return datasets.random_pixels(spec.input, count), f"{count} random image{plural}"


def count_activity(
    network: IntegerNetwork, board: BoardSupport, images: np.ndarray, divisor: int, folder: Path
) -> Activity:
    """Simulate the netlist top.json of `folder`, from its flash.bin to the last answer.

    divisor : cycles a bit of the serial port.

    Keeps the compiled simulator in folder/board. Raises UserError if the simulation fails or an
    answer differs from the golden's.
    """
    tools.check_host()
    netlist = read_netlist(folder / "top.json", FAMILIES[board.family])
    changed = [net.name for net in netlist.nets]
    high = [access for memory in (*netlist.ebr, *netlist.spram) for access in memory]
    text = instrumented(
        (folder / "netlist.v").read_text(), clock=netlist.clock, counting="board_bench.counting",
        changed=changed, high=high,
    )  # fmt: skip
    source = write_if_changed(folder / "counted.v", text)
    try:
        answers = run_board(
            [source], bench=board.bench(), share=tools.yosys_share(),
            flash=(folder / "flash.bin").read_bytes(), flash_offset=board.flash_offset,
            images=images, classes=network.spec.classes, divisor=divisor,
            folder=folder / "board", environment=tools.environment(), programs=[PROGRAM],
        )  # fmt: skip
    except SimulationError as fault:
        raise UserError(f"activity: {fault}") from None
    expected = golden.run(network, images)
    found: dict[str, Sequence[Any]] = {
        "head.logits": [answer.logits for answer in answers],
        "class": [answer.label for answer in answers],
    }
    for name, got in found.items():
        if not np.array_equal(expected[name], got):
            raise UserError(f"activity: {name} of the netlist is not the golden's")
    counts = read_counts(folder / "board", changed=len(changed), high=len(high))
    return summarise(netlist, counts, len(images))


def summarise(netlist: Netlist, counts: Counts, images: int) -> Activity:
    """Returns what was counted over `images` images as the Activity of one."""
    moves = [*zip(counts.changed, netlist.nets, strict=True)]
    first = 2 * len(netlist.ebr)
    return Activity(
        cycles=counts.cycles / images,
        loads=sum(changed * (1 + net.loads) for changed, net in moves) / images,
        multiplier_inputs=sum(changed * net.multiplier_loads for changed, net in moves) / images,
        flip_flops=netlist.flip_flops,
        ebr=sum(counts.high[:first]) / images,
        spram=sum(counts.high[first:]) / images,
        spram_writes=sum(counts.high[first + 1 :: 2]) / images,
    )
