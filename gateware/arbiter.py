"""Who gets the large memory in a cycle."""

from collections.abc import Mapping
from typing import Any

from amaranth import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.memory import FetchRequest, MemorySignature, WriteRequest
from bnnhw.gateware.parameters import WORD_WIDTH


class Arbiter(wiring.Component):
    """Grants each cycle to the first of its clients that asks; the access follows a cycle later.

    A granted word comes in the second cycle after its grant. A granted write is in the memory for
    every access that is granted later, and is seen from outside in the second cycle after. The
    memory's port is registered: neither who asks nor where lies on a path with the memory.

    Parameters
    ----------
    clients : {name: FetchRequest(width) or WriteRequest(width)}, by precedence
    width : bits of a word

    Members
    -------
    memory : Out(MemorySignature(width))    registered
    one port for each client, by its name: of the engine's shortcut, operand, residuals, bits, door,
    dense and fetch. A fetch's `grant` says that nobody before it asks, whether or not it asks
    itself; a write's that it is granted. Grants are combinational.
    """

    def __init__(
        self, clients: Mapping[str, FetchRequest | WriteRequest], width: int = WORD_WIDTH
    ) -> None:
        self._clients = dict(clients)
        ports = {name: In(signature) for name, signature in self._clients.items()}
        super().__init__({"memory": Out(MemorySignature(width))} | ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port: Any = self.memory
        clients: list[Any] = [getattr(self, name) for name in self._clients]
        writes = [isinstance(kind, WriteRequest) for kind in self._clients.values()]
        taken: Any = 0
        for client, writing in zip(clients, writes, strict=True):
            free = ~taken if client is not clients[0] else 1
            m.d.comb += client.grant.eq(free & client.request if writing else free)
            if not writing:
                m.d.comb += client.data.eq(port.read_data)
            taken |= client.request

        address, write = clients[-1].address, int(writes[-1])
        data: Any = None
        mask: Any = None
        for client, writing in [*zip(clients, writes, strict=True)][-2::-1]:
            address = Mux(client.request, client.address, address)
            write = Mux(client.request, int(writing), write)
        for client, writing in [*zip(clients, writes, strict=True)][::-1]:
            if writing:
                data = client.data if data is None else Mux(client.request, client.data, data)
                mask = client.mask if mask is None else Mux(client.request, client.mask, mask)
        m.d.sync += [port.address.eq(address), port.write.eq(write)]
        if data is not None:
            m.d.sync += [port.write_data.eq(data), port.write_mask.eq(mask)]
        return m
