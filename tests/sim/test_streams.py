"""Engines whose program and weights come as a stream of words, against the golden."""

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.lowering.lower import lower
from bnnhw.nn.untrained import untrained
from tests.sim.test_networks import IMAGES, NETWORKS, proof_of

STREAMED = (
    "14 layers, double residual",
    "maxout, averages, a thermometer, rsign, odd maps",
    "an ensemble of features, PReLU, single residual",
)


@pytest.mark.parametrize("name", STREAMED)
def test_every_tensor_equals_the_golden(name, tmp_path):
    """The bench fails where the engine asks for a word as short that is not, or loses its place."""
    network = lower(untrained(NETWORKS[name], seed=1))
    plan = make_plan(network, BOARD, streams=True)
    assert not len(plan.image) and plan.words.short.any()
    proof = proof_of(plan, network, tmp_path)
    assert proof.mismatch is None and proof.images == IMAGES
    for index, step in enumerate(plan.steps[1:], 1):  # the first is loaded while the last runs
        difference = abs(proof.step_cycles[index] - step.cycles.total)
        # How many logits are greater than all before is not known.
        greater = 31 * (network.spec.classes - 1) if step.kind == "head" else 0
        assert difference <= 0.03 * step.cycles.total + 40 + greater, step


def test_a_wrong_weight_is_seen(tmp_path):
    network = lower(untrained(NETWORKS["14 layers, double residual"], seed=1))
    plan = make_plan(network, BOARD, streams=True)
    words = plan.words.words.copy()
    words[np.flatnonzero(plan.words.short)[0]] ^= np.uint64(0xFFFF)
    wrong = replace(plan, words=replace(plan.words, words=words))
    proof = proof_of(wrong, network, tmp_path)
    assert proof.mismatch is not None and proof.mismatch.tensor.startswith("stage")
