"""A board's top behind a pseudo-terminal, with a stand-in for the engine: the client, and worse."""

import random
import time

import numpy as np
import pytest

from bnnhw.boards import support
from bnnhw.boards.icebreaker import BOARD
from bnnhw.flow import tools
from bnnhw.gateware.wire import SYNC, Identity, boot_image
from bnnhw.host.client import Client, open_port
from bnnhw.host.protocol import Answer, Decoder, Header, Status, ask_identity, ask_status, infer
from bnnhw.sim.board_port import build_port, running
from tests.sim.stand_in import stand_in

PAYLOAD = np.array([7, 5], "<u8").tobytes()
IDENTITY = Identity(height=4, width=4, channels=1, classes=3, clock_hz=24_000_000, baud=3_000_000)
BOOT = boot_image(IDENTITY, PAYLOAD, bytes(16), [0, 7, 14, 21])
DIVISOR, QUIET = 8, 100_000
STRINGS = 10_000


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled simulation, in which a silence is 0.2 ms."""
    folder = tmp_path_factory.mktemp("port")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "SILENCE_SECONDS", 0.0002)
        verilog = stand_in(BOARD, BOOT, folder)
    return build_port(
        [verilog], bench=BOARD.bench(), share=tools.yosys_share(), flash=BOOT.content,
        flash_offset=BOARD.flash_offset, folder=folder, environment=tools.environment(),
    )  # fmt: skip


@pytest.fixture
def port(program):
    with running(program, DIVISOR, QUIET) as name:
        opened = open_port(name, 3_000_000)
        yield opened
        opened.close()


def expected(image):
    """Logits, class and cycles of the stand-in."""
    return [sum(image) + 7 * index for index in range(5)]


def images(count, seed=1):
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def words(answer):
    return [*answer.logits, answer.label, answer.cycles]


def test_the_client_gets_every_answer(port):
    client = Client(port, "sim", 3_000_000, patience=20)
    header = client.identify()
    assert header.identity == BOOT.identity
    client.check(header, BOOT.identity.digest)
    sent = images(40)
    got = [timed.answer for timed in client.run(sent)]
    assert [words(answer) for answer in got] == [expected(image) for image in sent]


class Host:
    """A host that says what it likes, and hears what comes within 20 seconds."""

    def __init__(self, port):
        self.port, self.decoder = port, Decoder(3)

    def hear(self, kind, again=b""):
        """The first message of a kind; `again` is sent now and then until it comes."""
        deadline, asked = time.monotonic() + 20, 0.0
        while time.monotonic() < deadline:
            if again and time.monotonic() - asked > 0.2:
                self.port.write(again)
                asked = time.monotonic()
            for message in self.decoder.feed(self.port.read(4096)):
                if isinstance(message, kind):
                    return message
            time.sleep(0.001)
        raise AssertionError(f"no {kind.__name__} in 20 s")

    def settle(self):
        """Wait until the device listens, and no reply is left."""
        self.hear(Status, again=ask_status())
        quiet = time.monotonic()
        while time.monotonic() - quiet < 0.3:
            if self.port.read(4096):
                quiet = time.monotonic()
        self.decoder = Decoder(3)


def hostile(rng):
    parts = [infer(rng.randbytes(16), rng.randrange(4)), ask_identity(), ask_status(),
             bytes([SYNC]), b"\xb1\x40", rng.randbytes(3)]  # fmt: skip
    content = bytearray(b"".join(rng.choices(parts, k=rng.randrange(1, 4))))
    for _ in range(rng.choice([0, 1, 5])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.randrange(1, len(content) + 1)])


def test_hostile_bytes_from_a_host_that_does_not_read(port):
    """Nothing that came before keeps a good frame from its answer."""
    host, rng = Host(port), random.Random(3)
    for number, image in enumerate(images(20, seed=2)):
        for _ in range(STRINGS // 20):
            port.write(hostile(rng))
        host.settle()
        port.write(infer(image, number % 4))
        answer = host.hear(Answer)
        assert (answer.tag, answer.spoiled) == (number % 4, False)
        assert words(answer) == expected(image)


def test_a_cut_image_is_spoiled_and_its_rest_is_ignored(port):
    host, (image,) = Host(port), images(1)
    host.hear(Header, again=ask_identity())  # which comes when it has booted
    host.settle()
    port.write(infer(image, 3)[:9])
    assert host.hear(Answer).spoiled
    port.write(infer(image, 3)[9:])
    host.settle()
    port.write(infer(image, 1))
    assert words(host.hear(Answer)) == expected(image)
