"""Whole engines in Verilog against the golden, every tensor, for networks of many kinds."""

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import STRIPS, make_plan
from bnnhw.compiler.program import Program
from bnnhw.flow.prove import prove
from bnnhw.flow.verilog import to_verilog
from bnnhw.gateware.engine import Engine
from bnnhw.gateware.program import Load
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn.untrained import untrained

IMAGES = 2
WIDE = NumberFormats(residual_width=12, residual_fraction=7)
NETWORKS = {
    "14 layers, single residual": NetworkSpec(
        14, (16, 32, 48), (24, 24, 1), 7, Repair(double_residual=False)
    ),
    "14 layers, double residual": NetworkSpec(14, (16, 32, 48), (24, 24, 1), 7, Repair()),
    "minus-one padding, rsign, odd maps": NetworkSpec(
        8, (16, 18, 48), (9, 15, 3), 5, Repair("rsign", padding="minus-one")
    ),
    "single residual, rsign, odd maps, narrow": NetworkSpec(
        8, (6, 24, 30), (15, 10, 2), 3, Repair("rsign", double_residual=False)
    ),
    "wide residuals": NetworkSpec(8, (16, 32, 48), (8, 12, 3), 6, Repair(), WIDE),
    "wide residuals, single, minus-one": NetworkSpec(
        8, (16, 16, 32), (11, 9, 3), 6, Repair(double_residual=False, padding="minus-one"), WIDE
    ),
    "two stages, many classes": NetworkSpec(10, (16, 32), (12, 8, 4), 100, Repair()),
    "an ensemble of features, PReLU, single residual": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5,
        Repair(double_residual=False, ensemble="features-2", activation="prelu"),
    ),
    "groups, RPReLU, binary 1x1 shortcuts, rsign, minus-one": NetworkSpec(
        6, (18, 34), (9, 10, 2), 5,
        Repair("rsign", padding="minus-one", downsample="conv1x1-binary", ensemble="group-2",
               activation="rprelu"),
    ),
    "activations that rise and fall before bits": NetworkSpec(
        8, (6, 16, 16), (9, 8, 1), 4,
        Repair("rsign", double_residual=False, activation="maxout"),
    ),
    "stages of 1 and 2 blocks": NetworkSpec(
        widths=(8, 16), input=(9, 8, 1), classes=4, stages=(1, 2), repair=Repair("rsign")
    ),
    "AdaBin, maxout before the addition": NetworkSpec(
        6, (16, 32), (8, 6, 1), 3,
        Repair(binary_sets="adabin", activation="maxout", activation_position="before-add"),
    ),
    "an ensemble of weights, binary 1x1 shortcuts, single residual": NetworkSpec(
        6, (16, 32), (8, 6, 1), 3,
        Repair(double_residual=False, ensemble="weights-3", downsample="conv1x1-binary"),
    ),
    "averages, rsign": NetworkSpec(
        8, (16, 18, 34), (9, 10, 2), 5, Repair("rsign", downsample="avgpool-duplicate")
    ),
    "averages, an ensemble of weights, RPReLU, single residual": NetworkSpec(
        8, (6, 18, 40), (10, 9, 2), 5,
        Repair(double_residual=False, ensemble="weights-2", activation="rprelu",
               downsample="avgpool-duplicate"),
        NumberFormats(residual_width=10, residual_fraction=5),
    ),
    "maxout, averages, a thermometer, rsign, odd maps": NetworkSpec(
        8, (6, 18, 34), (9, 15, 2), 5,
        Repair("rsign", downsample="avgpool-duplicate", activation="maxout", stem="thermometer"),
    ),
    "RPReLU, rsign, minus-one": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5, Repair("rsign", padding="minus-one", activation="rprelu")
    ),
    "PReLU, single residual": NetworkSpec(
        8, (16, 18, 34), (12, 8, 3), 11, Repair(double_residual=False, activation="prelu")
    ),
    "maxout, averages, wide residuals": NetworkSpec(
        8, (18, 32, 34), (10, 9, 1), 5,
        Repair(downsample="avgpool-duplicate", activation="maxout"),
        NumberFormats(residual_width=11, residual_fraction=6),
    ),
    "averages, rsign, an ensemble of features": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5,
        Repair("rsign", downsample="avgpool-duplicate", ensemble="features-2"),
    ),
    "gates": NetworkSpec(6, (16, 34), (9, 10, 2), 5, Repair(squeeze_excitation="se")),
    "gates, an ensemble of features, PReLU, averages, single residual": NetworkSpec(
        8, (6, 18, 40), (10, 9, 2), 5,
        Repair(double_residual=False, squeeze_excitation="se", ensemble="features-2",
               activation="prelu", downsample="avgpool-duplicate"),
        NumberFormats(residual_width=11, residual_fraction=6, guard=2),
    ),
    "gates, spatial factors, RPReLU before the addition, rsign": NetworkSpec(
        6, (18, 34), (9, 10, 2), 5,
        Repair("rsign", squeeze_excitation="se", scaling="spatial", activation="rprelu",
               activation_position="before-add"),
    ),
    "spatial factors, rsign": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5, Repair("rsign", scaling="spatial")
    ),
    "spatial factors, an ensemble of features, PReLU, single residual, averages": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5,
        Repair(double_residual=False, scaling="spatial", ensemble="features-2",
               activation="prelu", downsample="avgpool-duplicate", padding="minus-one"),
    ),
    "8-bit 1x1 shortcuts": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5, Repair(downsample="conv1x1-8bit")
    ),
    "8-bit 1x1 shortcuts, a thermometer, single residual, rsign, minus-one": NetworkSpec(
        8, (6, 18, 34), (9, 10, 3), 5,
        Repair("rsign", double_residual=False, padding="minus-one", downsample="conv1x1-8bit",
               stem="thermometer"),
    ),
    "8-bit 1x1 shortcuts, an ensemble of weights, RPReLU, wide residuals": NetworkSpec(
        6, (16, 34), (10, 9, 1), 5,
        Repair(downsample="conv1x1-8bit", ensemble="weights-2", activation="rprelu"),
        NumberFormats(residual_width=10, residual_fraction=5),
    ),
    "a thermometer, rsign": NetworkSpec(
        6, (16, 34), (9, 10, 2), 5, Repair("rsign", stem="thermometer")
    ),
    "a thermometer in strips, single residual, minus-one, odd maps": NetworkSpec(
        6, (18, 34), (9, 27, 3), 5,
        Repair(double_residual=False, padding="minus-one", stem="thermometer"),
    ),
    "a thermometer in strips, an ensemble of features, PReLU": NetworkSpec(
        6, (16, 18), (6, 23, 3), 5,
        Repair(stem="thermometer", ensemble="features-2", activation="prelu"),
    ),
    "a pad byte for each colour": NetworkSpec(
        6, (16, 34), (9, 10, 3), 5, Repair("rsign"), pad=(0, 255, 77)
    ),
    "a thermometer of levels of its own, a pad byte for each colour, odd maps": NetworkSpec(
        6, (18, 34), (9, 13, 3), 5, Repair("rsign", stem="thermometer"),
        pad=(255, 0, 90), levels=(1, 5, 30, 90, 91, 200, 254, 255),
    ),
    "levels of its own, padded, in strips, minus-one": NetworkSpec(
        6, (18, 34), (9, 27, 3), 5, Repair(padding="minus-one", stem="thermometer"),
        pad=(124, 0, 200), levels=(*range(1, 36, 2), 90, 100, 130, 140),
    ),
}  # fmt: skip


def proof_of(plan, network, folder):
    verilog = to_verilog(Engine(plan.parameters, image_base=plan.image_base), "engine", folder)
    size = (IMAGES, *network.spec.input)
    images = np.random.default_rng(2).integers(0, 256, size, np.uint8)
    return prove(plan, network, verilog, images, folder / "sim", byte_cycles=80)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_equals_the_golden(name, tmp_path):
    spec = NETWORKS[name]
    network = lower(untrained(spec, seed=1))
    plan = make_plan(network, BOARD)
    proof = proof_of(plan, network, tmp_path)
    assert proof.mismatch is None
    bits = sum(step.bits is not None for step in plan.steps)
    residuals = sum(step.residual is not None for step in plan.steps)
    numbers = sum(step.numbers is not None for step in plan.steps)
    assert proof.tensors >= IMAGES * (bits + residuals + numbers + 2)
    for index, step in enumerate(plan.steps[1:], 1):  # the stem waits for its pixels
        # How many of its weights find free cycles while the step before runs is a guess.
        loaded = Load.from_bits(plan.steps[index - 1].words[4]).words
        difference = abs(proof.step_cycles[index] - step.cycles.total)
        assert difference <= 0.1 * step.cycles.total + loaded


@pytest.mark.parametrize(
    "repair",
    [
        Repair(activation="rprelu", activation_position="before-add"),
        Repair(scaling="spatial", activation="prelu", padding="minus-one"),
    ],
    ids=["before the addition", "spatial factors, minus-one"],
)
def test_sums_in_strips_of_rows(repair, tmp_path):
    """As on a memory that is too small for the sums of whole maps beside the stream."""
    spec = NetworkSpec(6, (16, 32), (13, 10, 2), 5, repair)
    network = lower(untrained(spec, seed=1))
    words = make_plan(network, BOARD).resources[0].used
    plan = make_plan(network, replace(BOARD, memory_words=words - 1))
    assert any(step.name.endswith(".rows0") for step in plan.steps)
    assert proof_of(plan, network, tmp_path).mismatch is None


@pytest.mark.parametrize("strips", [False, True], ids=["whole", "in strips"])
def test_maps_that_share_memory(strips, tmp_path):
    """As on a memory that is too small for a place of its own for each."""
    repair = Repair(
        "rsign", downsample="avgpool-duplicate", activation="maxout",
        activation_position="before-add" if strips else "after-add",
    )  # fmt: skip
    spec = NetworkSpec(8, (16, 32, 34), (13, 18, 3), 5, repair)
    network = lower(untrained(spec, seed=1))
    words = min(Program(network, strips=count).end for count in STRIPS)
    plan = make_plan(network, replace(BOARD, memory_words=words - 1))
    assert any(step.name.endswith(".rows0") for step in plan.steps) == strips
    assert proof_of(plan, network, tmp_path).mismatch is None
