"""cocotb test of board_bench: boots from the flash, sends frames, keeps the answers."""

import json
import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import First, RisingEdge, SimTimeoutError, Timer, with_timeout

from bnnhw.sim.engine_test import SimulationStuck
from bnnhw.sim.uart_host import UARTHost

PERIOD_NS = 10


@cocotb.test()
async def boot_and_run(dut: Any) -> None:
    settings = json.loads(os.environ["BOARD_BENCH"])
    limit_ns = settings["cycle_limit"] * PERIOD_NS
    host = UARTHost(dut.rx, dut.tx, settings["divisor"] * PERIOD_NS)
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start()
    await Timer(5 * PERIOD_NS, unit="ns")
    booted = RisingEdge(dut.led_ready)
    if await First(booted, RisingEdge(dut.led_error), Timer(limit_ns, unit="ns")) is not booted:
        state = "error" if int(dut.led_error.value) else "nothing"
        raise SimulationStuck(f"no ready light after {settings['cycle_limit']} cycles but {state}")
    answers = []
    for frame in settings["frames"]:
        answering = cocotb.start_soon(host.receive(settings["answer_bytes"]))
        dut.counting.value = 1
        await host.send(bytes.fromhex(frame))
        try:
            answers.append((await with_timeout(answering, limit_ns, "ns")).hex())
        except SimTimeoutError as fault:
            number = len(answers)
            raise SimulationStuck(f"frame {number}: no answer") from fault
        dut.counting.value = 0
    with open("answers.json", "w") as file:
        json.dump(answers, file)
