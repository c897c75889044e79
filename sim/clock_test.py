"""cocotb test of clock_bench: so many cycles."""

import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer

PERIOD_NS = 10


@cocotb.test()
async def run_cycles(dut: Any) -> None:
    cycles = int(os.environ["CLOCK_BENCH"])
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start(start_high=False)
    await Timer(cycles * PERIOD_NS, unit="ns")
