"""A testbench of bnnhw_engine.v: images in, and every logit and class against the golden model's.

With cocotb and a simulator installed, `python test_bnnhw_engine.py` runs it in Verilator, and
`python test_bnnhw_engine.py icarus` in Icarus Verilog. vectors.json has what goes in and comes out.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer

PERIOD_NS = 20
LIMIT = 4_000_000  # cycles, after which an engine is stuck


class Source:
    """Offers bytes on a stream, with pauses."""

    def __init__(self, dut: Any, name: str, content: bytes, pause: float) -> None:
        self.payload, self.valid, self.ready = (
            getattr(dut, f"{name}_{part}") for part in ("payload", "valid", "ready")
        )
        self.content, self.at, self.pause = content, 0, pause
        self.valid.value = 0
        self.offering = False

    def offer(self, rng: random.Random) -> None:
        """Offer the next byte, or go on with the offer."""
        if not self.offering and self.at < len(self.content) and rng.random() >= self.pause:
            self.offering = True
            self.payload.value = self.content[self.at]
            self.valid.value = 1

    def settle(self) -> None:
        """Take the byte away if this cycle's end takes it."""
        if self.offering and int(self.ready.value):
            self.at += 1
            self.offering = False

    def retire(self) -> None:
        """Take back `valid` after the edge."""
        if not self.offering:
            self.valid.value = 0


async def run(dut: Any, vectors: dict[str, Any], pause: float) -> list[list[int]]:
    """Reset the engine, load it, send the images with pauses; returns each one's words."""
    rng = random.Random(1)
    for name in ("pixels_valid", "results_ready", "pixels_payload"):
        getattr(dut, name).value = 0
    dut.rst.value = 1
    sources = []
    if vectors["load"]:
        sources.append(Source(dut, "load", bytes.fromhex(vectors["load"]), 0))
    pixels = Source(dut, "pixels", bytes.fromhex("".join(vectors["images"])), pause)
    for _ in range(4):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    answers: list[list[int]] = [[]]
    for _ in range(LIMIT):
        if not int(dut.ready.value):
            assert pixels.at == 0, "a pixel was taken before the engine was ready"
        for source in (*sources, pixels):
            source.retire()
            source.offer(rng)
        ready = rng.random() >= pause
        dut.results_ready.value = ready
        await Timer(PERIOD_NS // 4, unit="ns")  # what hangs on it is there, and the edge is not yet
        for source in (*sources, pixels):
            source.settle()
        if ready and int(dut.results_valid.value):
            answers[-1].append(dut.results_payload.value.to_signed())
            if int(dut.last.value):
                if len(answers) == len(vectors["images"]):
                    return answers
                answers.append([])
        await FallingEdge(dut.clk)
    raise AssertionError(f"no answer {len(answers)} in {LIMIT} cycles")


async def compare(dut: Any, pause: float) -> None:
    """Raise AssertionError, naming the image, unless all its logits and its class are right."""
    path = Path(os.environ.get("CORE_VECTORS", Path(__file__).with_name("vectors.json")))
    vectors = json.loads(path.read_text())
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    answers = await run(dut, vectors, pause)
    for index, (words, expected) in enumerate(zip(answers, vectors["answers"], strict=True)):
        *found, cycles = words
        assert found == expected, f"image {index}: {found}, the golden model has {expected}"
        assert cycles > 0
        dut._log.info(f"image {index}: class {expected[-1]}, {cycles} cycles")


@cocotb.test()
async def images_get_the_golden_answers(dut: Any) -> None:
    await compare(dut, 0.0)


@cocotb.test()
async def streams_that_pause_change_nothing(dut: Any) -> None:
    """After another reset; both sides wait in every other cycle."""
    await compare(dut, 0.5)


def main(simulator: str = "verilator") -> None:
    from cocotb_tools.runner import get_runner

    here = Path(__file__).resolve().parent
    runner = get_runner(simulator)
    verilator = simulator == "verilator"
    runner.build(
        sources=[here / "bnnhw_engine.v"], hdl_toplevel="bnnhw_engine", timescale=("1ns", "1ns"),
        build_args=["-Wno-fatal", "-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "--x-initial", "unique"]
        * verilator,
        build_dir=here / f"sim-{simulator}",
    )  # fmt: skip
    runner.test(
        hdl_toplevel="bnnhw_engine", test_module=Path(__file__).stem, test_dir=here,
        build_dir=here / f"sim-{simulator}", results_xml="results.xml",
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
