"""Fifty random combinations of the repair methods on five engines; tests.sim.fuzz has more."""

from collections import defaultdict
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tests.sim.combinations import BATCH, VALUES, batch_of, repairs
from tests.sim.fuzz import failure, machines

SEED, BATCHES = 5, 5


def test_every_value_of_every_method_is_among_them():
    used = defaultdict(set)
    for repair in islice(repairs(SEED), BATCH * BATCHES):
        for name in VALUES:
            used[name].add(getattr(repair, name))
    assert used == {name: set(values) for name, values in VALUES.items()}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_networks_equal_the_golden(batch, tmp_path):
    cases = batch_of(SEED, batch)
    engines = machines(cases, tmp_path / "engines")
    found = [failure(machine, case) for machine, group in engines for case in group]
    assert len(found) == BATCH and not any(found), "\n".join(filter(None, found))
    machine, (case, *_) = engines[0]
    head = case.network.head
    bias = np.where(head.bias_mantissa == 0, 1, -head.bias_mantissa).astype(np.int8)
    another = replace(case.network, head=replace(head, bias_mantissa=bias))
    assert "head.logits" in machine.difference(case, another)  # it is compared with the golden
