"""cocotb test of engine_bench: runs the frames and writes what it saw to seen.json.

The clock and the feeding run in the simulator; Python wakes on the bench's event counters only.
"""

import json
import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import First, Timer

PERIOD_NS = 10
AFTERWARDS = 8  # cycles after the last answer in which its step may still end


class SimulationStuck(AssertionError):
    """Nothing happened for longer than a frame may take."""


async def _steps(dut: Any, seen: list[dict[str, int]]) -> None:
    while True:
        await dut.steps.value_change
        seen.append(
            {
                "frame": int(dut.step_frame.value),
                "step": int(dut.last_step.value),
                "at": int(dut.step_at.value),
            }
        )


async def _answers(dut: Any, frames: int, results: int, seen: list[dict[str, Any]]) -> None:
    for _ in range(frames):
        words, at = [], []
        for _ in range(results):
            await dut.results_seen.value_change
            words.append(dut.last_result.value.to_signed())
            at.append(int(dut.result_at.value))
        seen.append(
            {
                "words": words,
                "at": at,
                "first_pixel": int(dut.first_pixel.value),
                "last_pixel": int(dut.last_pixel.value),
            }
        )


@cocotb.test()
async def run_frames(dut: Any) -> None:
    settings = json.loads(os.environ["ENGINE_BENCH"])
    frames, limit = settings["frames"], settings["cycle_limit"]
    steps: list[dict[str, int]] = []
    answers: list[dict[str, Any]] = []
    dut.frames.value = frames
    dut.snapshots.value = settings["snapshots"]
    dut.byte_cycles.value = settings["byte_cycles"]
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start()
    cocotb.start_soon(_steps(dut, steps))
    answering = cocotb.start_soon(_answers(dut, frames, settings["results"], answers))
    for _ in range(frames + 1):
        known = len(answers)
        await First(answering, Timer(limit * PERIOD_NS, unit="ns"))
        if answering.done() or len(answers) == known:
            break
    await Timer(AFTERWARDS * PERIOD_NS, unit="ns")
    with open("seen.json", "w") as file:
        json.dump({"steps": steps, "answers": answers}, file)
    if not answering.done():
        last = f"step {steps[-1]['step']}" if steps else "no step"
        raise SimulationStuck(
            f"frame {len(answers)}: no answer in {limit} cycles; {last} was the last to end, "
            f"{int(dut.sent.value)} bytes were taken"
        )
