"""What only trains costs no logic: the measured networks of these methods have one hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.cost.tables import entries
from bnnhw.flow.stages import write_design
from bnnhw.lowering.lower import lower
from bnnhw.measure import specifications
from bnnhw.network.methods import BASE, isolated
from bnnhw.network.repair import CATEGORIES, THRESHOLDS, TRAINING
from bnnhw.nn.untrained import untrained

NETWORK = "resnet8-digits"
FRACTION = 4  # bits of the residual stream after the point
COSTS = {
    f"{category.name}={value}": category.cost_of(value)
    for category in CATEGORIES
    for value in category.values
}


def methods(cost):
    return [method for method in isolated() if COSTS.get(method.name) == cost]


def planned(method):
    (spec,) = specifications(NETWORK, [method], FRACTION).values()
    return make_plan(lower(untrained(spec)), BOARD)


@pytest.fixture(scope="module")
def baseline():
    return planned(BASE)


def hardware(plan):
    """All of a plan that a design is made of."""
    return plan.parameters, plan.image_base, len(plan.image)


@pytest.mark.parametrize("method", methods(TRAINING), ids=lambda method: method.name)
def test_training_methods_have_the_baselines_engine_and_program(method, baseline, one_thread):
    plan = planned(method)
    assert hardware(plan) == hardware(baseline)
    assert plan.steps == baseline.steps and plan.memory_map == baseline.memory_map


@pytest.mark.parametrize("method", methods(THRESHOLDS), ids=lambda method: method.name)
def test_thresholds_are_all_that_a_method_with_thresholds_adds(method, baseline, one_thread):
    plan = planned(method)
    assert not baseline.parameters.thresholds
    more = replace(baseline.parameters, thresholds=True)
    assert hardware(plan) == (more, *hardware(baseline)[1:])
    assert plan.memory_map == baseline.memory_map


def test_equal_plans_but_for_their_weights_are_the_same_verilog(baseline, one_thread, tmp_path):
    (method,) = (method for method in isolated() if method.name == "feature_normalization=shift")
    texts = []
    for name, plan in (("one", baseline), ("other", planned(method))):
        folder = tmp_path / name
        folder.mkdir()
        write_design(plan, BOARD, folder, clock_hz=24e6, bound=False)
        files = sorted(path for path in folder.iterdir() if path.suffix in (".v", ".il", ".pcf"))
        texts.append({path.name: path.read_text() for path in files})
        contents = plan.image
    assert texts[0] == texts[1] and {"engine.v", "top.v", "top.il"} <= {*texts[0]}
    assert not np.array_equal(contents, baseline.image)


def test_the_table_names_the_cost_of_a_value_and_not_of_its_category():
    names = ["feature_binarizer=ede", "feature_binarizer=rsign", "scaling=spatial"]
    rows = [
        dict(method=m.name, settings=m.settings, status="built", measured="2026-01-31")
        for m in isolated()
        if m.name in names
    ]
    kinds = [entry["kind"] for entry in entries(rows, {})]
    assert kinds == ["training only", "thresholds", "topology"]


def test_every_training_method_is_tried():
    assert len(methods(TRAINING)) == 17 and len(methods(THRESHOLDS)) == 2
