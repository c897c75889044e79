"""The host's end of a serial line, in cocotb: sends and receives bytes, 8N1."""

from typing import Any

from cocotb.triggers import FallingEdge, Timer


class UARTHost:
    """Drives `tx` and watches `rx` (the host's names); a bit takes bit_ns nanoseconds."""

    def __init__(self, tx: Any, rx: Any, bit_ns: int) -> None:
        self._tx, self._rx, self._bit_ns = tx, rx, bit_ns
        tx.value = 1

    async def send(self, content: bytes) -> None:
        for byte in content:
            for bit in [0, *((byte >> index) & 1 for index in range(8)), 1]:
                self._tx.value = bit
                await Timer(self._bit_ns, unit="ns")

    async def receive(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            await FallingEdge(self._rx)
            await Timer(self._bit_ns // 2, unit="ns")
            byte = 0
            for index in range(8):
                await Timer(self._bit_ns, unit="ns")
                byte |= int(self._rx.value) << index
            await Timer(self._bit_ns, unit="ns")
            assert int(self._rx.value) == 1, "stop bit is 0"
            content.append(byte)
        return bytes(content)
