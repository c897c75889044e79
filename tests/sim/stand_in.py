"""A board's top with a stand-in for the engine."""

from bnnhw.flow.verilog import rtlil_to_verilog
from tests.flow.fakes import FakeEngine


def stand_in(board, boot, folder):
    """Returns its Verilog in a folder; images are of 16 bytes and 3 classes, at 24 MHz."""
    top = board.top(
        FakeEngine(frame_bytes=16, classes=3), frame_bytes=16, n_results=5,
        boot_length=len(boot.payload), clock_hz=24_000_000, check_start=boot.check_start,
    )  # fmt: skip
    return rtlil_to_verilog(board.prepare(top)["top.il"], "top", folder)
