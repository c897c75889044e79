"""A board's line with cocotbext-uart at the other end, whose rate is not quite the board's."""

import json
import random

from bnnhw.boards import support
from bnnhw.boards.icebreaker import BOARD
from bnnhw.flow import tools
from bnnhw.host.protocol import Answer, Decoder, Header, Status, ask_identity, ask_status, infer
from bnnhw.sim.board_bench import world
from bnnhw.sim.runner import simulate
from tests.sim.stand_in import stand_in
from tests.sim.test_board_port import BOOT, DIVISOR, expected, images, words

ERRORS = (-0.02, 0.02)  # of the host's rate
QUIET, LONG = 3_000, 16_000  # cycles: more than a silence and an answer; than the boot's header


def test_frames_at_rates_two_percent_apart(tmp_path, monkeypatch):
    """Every request gets its reply, one that is cut or damaged too, and nothing else comes."""
    monkeypatch.setattr(support, "SILENCE_SECONDS", 0.00002)
    verilog = stand_in(BOARD, BOOT, tmp_path)
    one, two, three = images(3)
    damaged = bytearray(infer(two, 1))
    damaged[7] ^= 4
    noise = random.Random(4).randbytes(20).replace(b"\xb1", b"")
    requests = [
        (infer(one, 2), QUIET),
        (bytes(damaged), QUIET),
        (infer(two, 1)[:9], QUIET),
        (noise, 0),
        (ask_identity(), LONG),
        (ask_status(), 0),
        (infer(three, 3), QUIET),
    ]
    settings = dict(
        errors=ERRORS, sent=[(sent.hex(), quiet) for sent, quiet in requests], divisor=DIVISOR,
    )  # fmt: skip
    (tmp_path / "flash.bin").write_bytes(BOOT.content)
    simulate(
        sources=[*world(BOARD.bench(), tools.yosys_share(), tmp_path), verilog], top="board_bench",
        test_module="tests.sim.uart_peer", folder=tmp_path, environment=tools.environment(),
        parameters=dict(FLASH_OFFSET=BOARD.flash_offset, FLASH_BYTES=len(BOOT.content)),
        variables=dict(UART_PEER=json.dumps(settings)),
    )  # fmt: skip
    heard = json.loads((tmp_path / "heard.json").read_text())
    for error, text in zip(ERRORS, heard, strict=True):
        decoder = Decoder(3)
        messages = decoder.feed(bytes.fromhex(text))
        assert not decoder.junk and not decoder.flush(), error
        kinds = [type(m) for m in messages]
        assert kinds == [*(3 * [Status, Answer]), Header, Status, Status, Answer], error
        first, spoiled, cut, last = (m for m in messages if isinstance(m, Answer))
        assert (first.tag, words(first)) == (2, expected(one)), error
        assert spoiled.spoiled and cut.spoiled, error
        assert (last.tag, last.spoiled, words(last)) == (3, False, expected(three)), error
