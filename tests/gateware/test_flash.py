import random

import pytest
from amaranth.lib.crc import catalog

from bnnhw.gateware.flash import FlashReader
from bnnhw.gateware.wire import IDENTITY_BYTES, Identity, boot_image, checksum
from tests.gateware.bench import simulate
from tests.gateware.streams import receive

IDENTITY = Identity(height=2, width=3, channels=1, classes=2, clock_hz=24_000_000, baud=3_000_000)


def image_of(payload, **settings):
    """The boot image of a payload, with a test of six bytes and three words."""
    return boot_image(IDENTITY, payload, b"pixels", [1, -2, 0], **settings)


async def model(ctx, dut, content, log):
    """A SPI flash that answers 0x03. Logs commands; mode 0."""
    while True:
        await ctx.posedge(dut.select)
        shifted, address = [], None
        while ctx.get(dut.select):
            before = ctx.get(dut.clock)
            await ctx.tick()
            after = ctx.get(dut.clock)
            if after and not before:
                shifted.append(ctx.get(dut.copi))
                if len(shifted) == 32:
                    log.append(bits_to_int(shifted))
                    if log[-1] >> 24 == 0x03:
                        address = log[-1] % (1 << 24) * 8
            if before and not after and address is not None:
                position = len(shifted) - 32 + address
                byte = content[position // 8] if position // 8 < len(content) else 0xFF
                ctx.set(dut.cipo, (byte >> (7 - position % 8)) & 1)


def bits_to_int(bits):
    return int("".join(map(str, bits)), 2)


def read(
    image, length, *, offset=5, stall=0.0, check_start=None, content=None, asked=0, warm_up=False
):
    """Boot from an image; then ask for its header so often. Returns (payload, error, headers)."""
    start = image.check_start if check_start is None else check_start
    size = image.identity.header_bytes
    dut = FlashReader(
        offset=offset, header_bytes=size, length=length, check_start=start, warm_up=warm_up
    )
    log, got, result, headers = [], [], [], []
    content = b"\xff" * offset + image.content if content is None else content

    async def flash(ctx):
        await model(ctx, dut, content, log)

    async def drain(ctx):
        got.extend(await receive(ctx, dut.o, length, stall=stall))
        await ctx.tick().until(dut.done)
        await ctx.tick().repeat(20)
        result.extend([ctx.get(dut.error), ctx.get(dut.select), ctx.get(dut.clock)])
        for _ in range(asked):
            header = []
            ctx.set(dut.read, 1)
            for index in range(size):
                header += await receive(ctx, dut.header, 1, stall=stall, seed=index)
                assert ctx.get(dut.last) == (index == size - 1)
                assert ctx.get(dut.done) and not ctx.get(dut.o.valid)
            ctx.set(dut.read, 0)
            headers.append(bytes(header))
            await ctx.tick().repeat(20)
            assert (ctx.get(dut.error), ctx.get(dut.select)) == (result[0], 0)

    simulate(dut, drain, background=[flash], cycles=100_000)
    assert log == [0xAB000000] * warm_up + [0x03000000 + offset] * (1 + asked)
    assert result[1:] == [0, 0]
    return bytes(got), result[0], headers


@pytest.mark.parametrize("length", [4, 8, 36, 200])
@pytest.mark.parametrize(("stall", "warm_up"), [(0.0, False), (0.97, True)])
def test_reads_payload_and_header(length, stall, warm_up):
    payload = random.Random(length).randbytes(length)
    image = image_of(payload)
    got, error, headers = read(image, length, stall=stall, asked=2, warm_up=warm_up)
    assert got == payload
    assert not error
    assert headers == [image.content[: image.identity.header_bytes]] * 2
    assert Identity.unpack(headers[0][:IDENTITY_BYTES]) == image.identity


@pytest.mark.parametrize("bit", [0, 33, 70, 100, 150, 1000, 1031])
def test_flipped_bit_is_an_error(bit):
    image = image_of(b"hello world!")
    content = bytearray(image.content)
    content[bit // 8] ^= 1 << bit % 8
    _, error, headers = read(image, 12, content=b"\xff" * 5 + bytes(content), asked=1)
    assert error
    assert headers == [content[: image.identity.header_bytes]]  # the host can see what is there


def test_erased_zero_and_other_length_are_errors():
    image, longer = image_of(b"hello world!"), image_of(b"hello world, you")
    assert read(image, 12, content=b"\xff" * 300)[1]
    assert read(image, 12, content=b"\x00" * 300)[1]
    assert read(image, 12, content=b"\xff" * 5 + longer.content)[1]


def test_the_image_of_another_build_is_an_error():
    """Payloads of equal length, each whole: only gateware bound to none takes any unbound one."""
    one, other = image_of(b"hello world!"), image_of(b"hello wordl!")
    assert not read(one, 12, check_start=one.check_start)[1]
    assert read(one, 12, check_start=other.check_start)[1]
    unbound = [image_of(payload, bound=False) for payload in (b"hello world!", b"hello wordl!")]
    assert unbound[0].check_start == unbound[1].check_start
    assert not any(read(image, 12)[1] for image in unbound)


def test_checksum_is_the_catalogued_one():
    content = random.Random(3).randbytes(100)
    assert checksum(content) == catalog.CRC32_MPEG_2().compute(content)


def test_bad_parameters():
    with pytest.raises(ValueError, match="24 bits"):
        FlashReader(offset=1 << 24, header_bytes=200, length=4)
    with pytest.raises(ValueError, match="length=0"):
        FlashReader(offset=0, header_bytes=200, length=0)
    with pytest.raises(ValueError, match="length=6: must be a multiple of 4"):
        FlashReader(offset=0, header_bytes=200, length=6)
    with pytest.raises(ValueError, match="header_bytes=98: must be a multiple of 4"):
        FlashReader(offset=0, header_bytes=98, length=4)
    with pytest.raises(ValueError, match="header_bytes=92: must be at least 96"):
        FlashReader(offset=0, header_bytes=92, length=4)
    with pytest.raises(ValueError, match="test: 5 bytes and 3 words, must be 6 and 3"):
        boot_image(IDENTITY, b"", b"pixel", [1, 2, 3])
