import numpy as np
import pytest

from bnnhw.errors import UserError
from bnnhw.flow import prove
from bnnhw.sim.engine_bench import Frame


def test_first_difference_is_named_in_raster_order():
    expected = np.zeros((4, 5, 3), np.int32)
    got = expected.copy()
    assert prove.first_difference(0, "stem.residual", expected, got) is None
    got[2, 1, 2], got[2, 1, 1], got[3, 0, 0] = 7, -8, 9
    wrong = prove.first_difference(4, "stem.residual", expected, got)
    assert str(wrong) == "image 4: stem.residual[2, 1, 1] is -8, the golden has 0"


def test_other_shape_is_an_error():
    with pytest.raises(UserError, match=r"stem.bits is \(2,\), the golden has \(3,\)"):
        prove.first_difference(0, "stem.bits", np.zeros(3), np.zeros(2))


class Plan:
    """Each step leaves one map of two words."""

    stream_words = 0

    def tensors(self, step, memory, stream):
        return {f"step{step}.bits": memory[2 * step : 2 * step + 2]}


def frame(tmp_path, memory, logits, label):
    path = tmp_path / "snapshot.hex"
    path.write_text("// comment\n@0\n" + "\n".join(f"{word:016x}" for word in memory))
    return Frame(np.array(logits), label, 9, 5, 7, [(0, 3), (1, 6)], {0: path, 1: path})


def test_compare_goes_step_by_step_then_results(tmp_path):
    taps = {
        "step0.bits": np.array([[1, 2]]), "step1.bits": np.array([[3, 4]]),
        "head.logits": np.array([[5, -6]]), "class": np.array([0]),
    }  # fmt: skip
    good = frame(tmp_path, [1, 2, 3, 4], [5, -6], 0)
    assert prove.compare(Plan(), good, 0, taps, 0) == (4, None)
    count, wrong = prove.compare(Plan(), frame(tmp_path, [1, 2, 3, 0], [5, 0], 1), 0, taps, 0)
    assert (count, wrong.tensor, wrong.position) == (2, "step1.bits", (1,))
    count, wrong = prove.compare(Plan(), frame(tmp_path, [1, 2, 3, 4], [5, -6], 1), 0, taps, 0)
    assert (count, wrong.tensor, wrong.got) == (4, "class", 1)


def test_step_cycles_add_up_from_the_first_byte(tmp_path):
    assert prove._step_cycles(frame(tmp_path, [0], [0], 0)) == {0: 3, 1: 3}
