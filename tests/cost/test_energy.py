"""The estimate by hand, and that its page gives every coefficient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnnhw import datasets
from bnnhw.boards.icebreaker import BOARD
from bnnhw.cost.activity import Activity, choose_images, summarise
from bnnhw.cost.energy import COMPONENTS, estimate, large_memory, microjoules
from bnnhw.cost.netlist import Net, Netlist
from bnnhw.errors import UserError
from bnnhw.network.repair import BASELINE
from bnnhw.network.spec import NetworkSpec
from bnnhw.sim.toggles import Counts

ACTIVITY = Activity(cycles=1000, loads=20_000, multiplier_inputs=300, flip_flops=50, ebr=7000,
                    spram=4000, spram_writes=400)  # fmt: skip
TRAFFIC = dict(reads=dict(weights=500, image=100), writes=dict(features=60, image=40))
PAGE = Path(__file__).parents[2] / "docs" / "energy.md"


def test_changes_are_weighted_by_what_a_net_drives():
    nets = (Net("a", 3, 0), Net("b", 0, 2), Net("c", 5, 5))
    netlist = Netlist("clk", 9, nets, ebr=(("r", "w"),), spram=(("s", "t"), ("u", "v")))
    counts = Counts(cycles=40, changed=[10, 6, 0], high=[40, 8, 30, 10, 28, 12])
    assert summarise(netlist, counts, 2) == Activity(
        cycles=20, loads=(10 * 4 + 6 * 1) / 2, multiplier_inputs=6 * 2 / 2, flip_flops=9,
        ebr=48 / 2, spram=80 / 2, spram_writes=22 / 2,
    )  # fmt: skip


def test_every_component_by_hand():
    parts = microjoules(ACTIVITY, 20e6, BOARD)
    by_hand = dict(
        logic=20_000 * 0.122e-6, flip_flops=50 * 1000 * 0.0144e-6, clock=1000 * 41.9e-6,
        multipliers=300 * 2.35e-6, ebr=7000 * 1.02e-6, spram=4000 * 8.15e-6,
        static=50e-6 * 104, pll=50e-6 * 169,
    )  # fmt: skip
    assert parts == pytest.approx(by_hand, abs=1e-4) and tuple(parts) == COMPONENTS


def test_static_energy_falls_with_the_clock_and_no_other_does():
    slow, fast = (microjoules(ACTIVITY, hz, BOARD) for hz in (12e6, 24e6))
    for name in COMPONENTS:
        factor = 2 if name in ("static", "pll") else 1
        assert slow[name] == pytest.approx(factor * fast[name], abs=2e-4), name


def test_accesses_of_the_large_memory_by_what_they_are():
    parts = large_memory(ACTIVITY, TRAFFIC, BOARD)
    word = 4 * 8.15e-6
    assert parts["reads"] == pytest.approx(
        dict(weights=500 * word, image=100 * word, idle=(1000 - 700) * word), abs=1e-4
    )
    assert parts["writes"] == pytest.approx(dict(features=60 * word, image=40 * word), abs=1e-4)
    total = sum(sum(kinds.values()) for kinds in parts.values())
    assert total == pytest.approx(microjoules(ACTIVITY, 20e6, BOARD)["spram"], abs=1e-3)
    assert "idle" not in TRAFFIC["reads"]


def test_a_row_says_that_it_is_an_estimate_and_of_what():
    row = estimate(ACTIVITY, TRAFFIC, "1 test image of digits", 24e6, BOARD)
    assert row["estimate"] is True and row["images"] == "1 test image of digits"
    assert row["total"] == pytest.approx(sum(row["microjoules"].values()), abs=1e-3)
    assert row["activity"]["loads"] == 20_000 and row["clock_mhz"] == 24


def test_memories_follow_from_what_was_published():
    scale = (1.219 / 0.9) ** 2 * 40 / 45
    known = {name: part.value for name, part in BOARD.energy.items()}
    assert known["ebr"] == pytest.approx(10e-12 * (0.5 / 8) ** 0.5 / 4 * scale, rel=5e-3)
    assert known["spram"] == pytest.approx(20e-12 / 4 * scale, rel=5e-3)
    assert known["static"] == pytest.approx(85.6e-6 * 1.219, rel=5e-3)
    assert known["pll"] == pytest.approx(138.7e-6 * 1.219, rel=5e-3)
    assert known["flip_flop"] == pytest.approx(27.8e-6 * 1.219 / 12e6 / 196, rel=5e-3)


def test_the_page_gives_every_coefficient():
    text = PAGE.read_text()
    for name, part in BOARD.energy.items():
        scale, unit = (1e6, "µW") if name in ("static", "pll") else (1e12, "pJ")
        assert f"| `{name}` | {part.value * scale:.4g} {unit} |" in text, name


def test_images_are_real_where_there_are_any(tmp_path):
    digits = NetworkSpec(depth=8, input=(8, 8, 1), repair=BASELINE)
    images, source = choose_images(digits, 2, None)
    assert source == "2 test images of digits"
    assert np.array_equal(images, datasets.load("digits", None, "test").pixels[:2])
    cifar = NetworkSpec(depth=20, input=(32, 32, 3), repair=BASELINE)
    images, source = choose_images(cifar, 1, None)
    assert source == "1 random image" and images.shape == (1, 32, 32, 3)
    labels = np.arange(30) % 10
    np.savez(tmp_path / "mine.npz", x=np.ones((30, 32, 32, 3), np.uint8), y=labels)
    images, source = choose_images(cifar, 1, tmp_path / "mine.npz")
    assert source == "1 test image of mine" and images.sum() == 3072
    with pytest.raises(UserError, match="images are 32x32x3, the network takes 8x8x1"):
        choose_images(digits, 1, tmp_path / "mine.npz")
    images, source = choose_images(digits, 1, tmp_path / "mine.npz", resize=True)
    assert images.shape == (1, 8, 8, 1)
