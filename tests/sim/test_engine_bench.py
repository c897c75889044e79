import numpy as np
import pytest
from rich.console import Console

from bnnhw import golden
from bnnhw.flow import tools
from bnnhw.flow.build import Build, Request
from bnnhw.flow.prove import compare
from bnnhw.flow.verilog import to_verilog
from bnnhw.sim.engine_bench import read_snapshot, run_engine
from bnnhw.sim.runner import SimulationError
from tests.flow.fakes import FakeEngine

BOOT = np.array([0x1122334455660007, 0xFFFFFFFFFFFFFFFF, 3], np.uint64)
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 2), np.uint8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    return folder, to_verilog(FakeEngine(frame_bytes=24, classes=3), "engine", folder)


@pytest.mark.parametrize("options", [{}, {"load_stream": True, "stall": True}])
def test_frames_of_a_known_engine(engine, options):
    folder, verilog = engine
    frames = run_engine(
        [verilog], boot=BOOT, images=IMAGES, classes=3, folder=folder / "sim",
        environment=tools.environment(), **options,
    )  # fmt: skip
    for frame, image in zip(frames, IMAGES, strict=True):
        assert frame.logits.tolist() == [int(image.sum()) + 7 * k for k in range(3)]
        assert (frame.label, frame.counted) == tuple(int(image.sum()) + 7 * k for k in (3, 4))
        assert [step for step, _ in frame.step_ends][:1] == [0]
        assert 0 < frame.latency < frame.total
        if not options:
            assert frame.total - frame.latency == 23  # a byte every cycle
        memory = read_snapshot(frame.snapshots[0])
        assert memory.shape == (16384,) and np.array_equal(memory[:3], BOOT)
        assert memory[3] != 0


def test_a_stuck_engine_is_one_clear_error(engine):
    folder, verilog = engine
    with pytest.raises(SimulationError, match="frame 0: no answer in 20 cycles"):
        run_engine(
            [verilog], boot=BOOT, images=IMAGES, classes=3, folder=folder / "sim",
            environment=tools.environment(), cycle_limit=20,
        )  # fmt: skip


def test_digits_by_the_load_stream_and_with_stalls(tmp_path):
    build = Build(
        Request("icebreaker", "resnet8-digits", out=tmp_path, images=2), Console(quiet=True)
    )
    build.plan_network()
    build.work.mkdir()
    build.write_verilog()
    frames = run_engine(
        [build.work / "engine.v"], boot=build.plan.image,
        images=build.images, classes=10, folder=build.work / "sim",
        environment=tools.environment(), load_stream=True, stall=True,
    )  # fmt: skip
    taps = golden.run(build.network, build.images, taps="all")
    for row, frame in enumerate(frames):
        assert compare(build.plan, frame, row, taps, row) == (15, None)
