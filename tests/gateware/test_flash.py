import random

import pytest
from amaranth.lib.crc import catalog

from bnnhw.gateware.flash import FlashReader, boot_image, checksum
from tests.gateware.bench import simulate
from tests.gateware.streams import receive


async def model(ctx, dut, content, log):
    """A SPI flash: asleep until 0xAB; answers 0x03. Logs commands; mode 0."""
    awake = False
    while True:
        await ctx.posedge(dut.select)
        shifted, address = [], None
        while ctx.get(dut.select):
            before = ctx.get(dut.clock)
            await ctx.tick()
            after = ctx.get(dut.clock)
            if after and not before:
                shifted.append(ctx.get(dut.copi))
                if len(shifted) == 8 and bits_to_int(shifted) == 0xAB:
                    awake = True
                    log.append(0xAB)
                if len(shifted) == 32 and awake:
                    assert bits_to_int(shifted[:8]) == 0x03
                    address = bits_to_int(shifted[8:]) * 8
                    log.append(address // 8)
            if before and not after and address is not None:
                position = len(shifted) - 32 + address
                byte = content[position // 8] if position // 8 < len(content) else 0xFF
                ctx.set(dut.cipo, (byte >> (7 - position % 8)) & 1)


def bits_to_int(bits):
    return int("".join(map(str, bits)), 2)


def read(content, length, *, offset=5, stall=0.0):
    dut = FlashReader(offset=offset, length=length)
    log, got, result = [], [], []

    async def flash(ctx):
        await model(ctx, dut, content, log)

    async def drain(ctx):
        got.extend(await receive(ctx, dut.o, length, stall=stall))
        await ctx.tick().until(dut.done)
        await ctx.tick().repeat(20)
        result.extend([ctx.get(dut.error), ctx.get(dut.select), ctx.get(dut.clock)])

    simulate(dut, drain, background=[flash])
    assert log == [0xAB, offset]
    assert result[1:] == [0, 0]
    return bytes(got), result[0]


@pytest.mark.parametrize("length", [1, 4, 9, 33])
@pytest.mark.parametrize("stall", [0.0, 0.97])
def test_reads_payload(length, stall):
    payload = random.Random(length).randbytes(length)
    got, error = read(b"\xff" * 5 + boot_image(payload), length, stall=stall)
    assert got == payload
    assert not error


@pytest.mark.parametrize("bit", [0, 33, 70, 100, 150])
def test_flipped_bit_is_an_error(bit):
    image = bytearray(boot_image(b"hello world"))
    image[bit // 8] ^= 1 << bit % 8
    _, error = read(b"\xff" * 5 + bytes(image), 11)
    assert error


def test_erased_zero_and_other_length_are_errors():
    assert read(b"\xff" * 100, 11)[1]
    assert read(b"\x00" * 100, 11)[1]
    assert read(b"\xff" * 5 + boot_image(b"hello worlds"), 11)[1]


def test_checksum_is_the_catalogued_one():
    content = random.Random(3).randbytes(100)
    assert checksum(content) == catalog.CRC32_BZIP2().compute(content)


def test_bad_parameters():
    with pytest.raises(ValueError, match="24 bits"):
        FlashReader(offset=1 << 24, length=4)
    with pytest.raises(ValueError, match="length=0"):
        FlashReader(offset=0, length=0)
