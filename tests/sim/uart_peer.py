"""cocotb test of board_bench: cocotbext-uart's ends of the line as the host, at other rates."""

import json
import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer, with_timeout
from cocotbext.uart import UartSink, UartSource

PERIOD_NS = 1000


@cocotb.test()
async def frames_at_other_rates(dut: Any) -> None:
    settings = json.loads(os.environ["UART_PEER"])
    dut.rx.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start()
    await with_timeout(RisingEdge(dut.led_ready), 20_000 * PERIOD_NS, "ns")
    heard = []
    for error in settings["errors"]:
        baud = 1e9 / (settings["divisor"] * PERIOD_NS) * (1 + error)
        source, sink = UartSource(dut.rx, baud=baud), UartSink(dut.tx, baud=baud)
        for sent, quiet in settings["sent"]:
            await source.write(bytes.fromhex(sent))
            await source.wait()
            await Timer((quiet + 1) * PERIOD_NS, unit="ns")
        heard.append(bytes(sink.read_nowait()).hex())
        source._run_cr.cancel()
        sink._run_cr.cancel()
    with open("heard.json", "w") as file:
        json.dump(heard, file)
