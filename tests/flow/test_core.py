"""The engine for a design of one's own: its testbench, its synthesis, what the page shows."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import bnnhw
from bnnhw import golden
from bnnhw.boards import board
from bnnhw.build import main
from bnnhw.compiler.plan import make_plan
from bnnhw.datasets import random_pixels
from bnnhw.flow import tools
from bnnhw.flow.core import MODULE, TESTBENCH, prove_core, write_core
from bnnhw.flow.families import FAMILIES
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.untrained import untrained

PAGE = Path(__file__).parents[2] / "docs" / "core.md"
SPEC = NetworkSpec(depth=6, widths=(16, 34), input=(9, 10, 2), classes=5)
WEIGHTS_INSIDE = {"icebreaker": False, "ulx3s": True}  # of each family


@pytest.fixture(scope="module", params=WEIGHTS_INSIDE)
def core(request, tmp_path_factory):
    folder, chosen = tmp_path_factory.mktemp(request.param), board(request.param)
    plan = make_plan(lower(untrained(SPEC)), chosen, pe=1)
    images = random_pixels(SPEC.input, 2)
    files = write_core(plan, chosen, folder, images=images, clock_hz=24e6, name="small")
    return request.param, plan, files


def test_the_testbench_passes_and_notices_a_wrong_logit(core):
    name, plan, files = core
    assert files.inside == WEIGHTS_INSIDE[name]
    prove_core(files)
    log = (files.folder / "work" / "simulation.log").read_text()
    assert "PASS=2 FAIL=0" in log
    vectors = files.folder / "vectors.json"
    right = vectors.read_text()
    content = json.loads(right)
    content["answers"][1][2] += 1
    vectors.write_text(json.dumps(content))
    with pytest.raises(bnnhw.UserError, match="the testbench does not pass: .*image 1: "):
        prove_core(files)
    vectors.write_text(right)


def test_yosys_makes_memories_and_multipliers_of_it(core):
    name, plan, files = core
    command = FAMILIES[board(name).family].alone
    script = f"read_verilog {MODULE}.v\n{command} -top {MODULE}\ntee -o stat.txt stat\n"
    (files.folder / "synth.ys").write_text(script)
    tools.run(tools.YOSYS, ["-q", "synth.ys"], cwd=files.folder, log="synth.log")
    found = dict(re.findall(r"(\d+)\s+(\w+)$", (files.folder / "stat.txt").read_text(), re.M))
    cells = {cell: int(count) for count, cell in found.items()}
    assert command.split()[0] in (files.folder / "README.md").read_text()
    if name == "icebreaker":
        assert cells["SB_SPRAM256KA"] == 4 and cells["SB_MAC16"] == 8
        assert cells["SB_LUT4"] < 5280 and cells["SB_RAM40_4K"] <= 30
    else:
        assert 16 < cells["DP16KD"] <= 56  # 16 of them are bits of the large memory apart
        assert cells["MULT18X18D"] >= 4 and cells["LUT4"] < 24288


@pytest.mark.long  # and wants another simulator: apt install iverilog
def test_the_testbench_passes_in_icarus(core):
    _, _, files = core
    assert shutil.which("iverilog"), "apt install iverilog"
    done = subprocess.run(
        [sys.executable, TESTBENCH, "icarus"], cwd=files.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
    )  # fmt: skip
    assert "TESTS=2 PASS=2 FAIL=0" in done.stdout, done.stdout[-2000:]


def test_the_page_has_every_file(core):
    _, plan, files = core
    pages = PAGE.read_text() + (files.folder / "README.md").read_text()
    for path in files.folder.iterdir():
        if path.is_file() and not path.name.startswith("s"):  # of the tests
            assert f"`{path.name}`" in pages or path.name == "README.md"
    weights = (files.folder / "weights.bin").read_bytes()
    assert len(weights) == 8 * len(plan.image)
    words = (files.folder / "weights.hex").read_text().split()
    assert bytes(int(word, 16) for word in words) == weights


def test_the_example_in_amaranth_names_a_one(capsys):
    """As the golden model does, whose image is the same bar."""
    names: dict = {}
    exec(PAGE.read_text().split("<!-- amaranth -->\n```python\n")[1].split("```")[0], names)
    said = capsys.readouterr().out
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[:, :, 3:5] = 255
    label = golden.run(names["network"], image)["class"][0]
    assert said == f"the bar is a {label}\n" and f"```\n{said}```" in PAGE.read_text()


def test_a_plan_that_streams_its_weights_is_refused():
    plan = make_plan(lower(untrained(SPEC)), board("icebreaker"), streams=True)
    with pytest.raises(bnnhw.UserError, match="plan it without streams"):
        bnnhw.make_core(plan)


def test_the_command(tmp_path, monkeypatch):
    """Its folder has what the page says; it is no build, so options of builds are refused."""
    monkeypatch.setattr("bnnhw.flow.build.prove_core", lambda files: proved.append(files))
    proved, out = [], tmp_path / "mine"
    words = ["resnet8-digits", "--board", "icebreaker", "--core", str(out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert f"{out}/README.md" in done.output and proved[0].verilog == out / "bnnhw_engine.v"
    vectors = json.loads((out / "vectors.json").read_text())
    assert len(vectors["images"]) == 1 and len(vectors["answers"][0]) == 11
    for more in (["--stop-after", "plan"], ["--out", str(out)]):
        refused = CliRunner().invoke(main, [*words, *more])
        assert refused.exit_code == 2 and "--core: is no build of a board" in refused.output
