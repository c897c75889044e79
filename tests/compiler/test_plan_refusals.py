"""What does not fit, by the name of every resource, and what just does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as LARGER
from bnnhw.compiler.plan import DoesNotFit, make_plan
from bnnhw.errors import UserError
from bnnhw.network.layers import Layer
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from tests.plans import SPECS, names_of, network_of
from tests.random_networks import random_network


def refused(spec: NetworkSpec, board=BOARD) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        make_plan(network_of(spec), board)
    message = str(caught.value)
    assert board.name in message and "\n" not in message
    for part in caught.value.resources:
        if not part.fits:
            assert f"{part.name}: needs {part.used}, has {part.available} (" in message
        else:
            assert part.name not in message
    return caught.value


def test_what_the_engine_has_no_part_for_is_named():
    spec = NetworkSpec(depth=8, formats=NumberFormats(residual_fractions=(3, 4, 4)))
    with pytest.raises(UserError, match=r"residual_fractions=\(3, 4, 4\): the engine has no such"):
        make_plan(network_of(spec), BOARD)
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1))
    network = random_network(spec, exponents=True)
    with pytest.raises(UserError, match=r"stem\.exponent\[.\]=.*lower it with exponents=False"):
        make_plan(network, BOARD)
    adabin = Repair(binary_sets="adabin")
    for settings, fault in (
        (dict(stem_activation="prelu"), "stem_activation=prelu: the engine"),
        (dict(adabin_padding="zero", repair=adabin), "adabin_padding=zero: the engine"),
    ):
        with pytest.raises(UserError, match=fault):
            make_plan(random_network(replace(spec, **settings)), BOARD)
    layers = (Layer("one", 4, 4), Layer("two", 4, 4, repair=Repair(activation="prelu")))
    with pytest.raises(UserError, match=r"two\.repair: the engine has no such part yet"):
        make_plan(random_network(NetworkSpec(layers=layers, input=(8, 8, 1))), BOARD)
    same = NetworkSpec(depth=8, formats=NumberFormats(residual_fractions=(4, 4, 4)))
    assert make_plan(network_of(same), BOARD)


def test_what_is_too_wide_names_every_resource():
    error = refused(NetworkSpec(depth=20, widths=(64, 128, 256)))
    assert names_of(error) == {"memory", "weight buffer", "window buffer"}
    used = {part.name.split(" (")[0]: part.used for part in error.resources}
    assert used["weight buffer"] == 256 * 128 // 16
    assert used["window buffer"] == max((16 + 2) * 4, (8 + 2) * 8, (4 + 2) * 16)
    assert isinstance(error, UserError)


@pytest.mark.parametrize(
    ("spec", "board", "resource"),
    [
        (NetworkSpec(depth=4, widths=(16,), input=(126, 60, 1)), BOARD, "memory"),
        (NetworkSpec(4, (16,), (92, 92, 1)), LARGER, "last map, or one with gates"),
        (NetworkSpec(depth=6, widths=(64, 80), input=(4, 4, 1)), BOARD, "weight buffer"),
        (NetworkSpec(depth=4, widths=(16,), input=(4, 126, 1)), BOARD, "window buffer"),
        (NetworkSpec(depth=4, widths=(16,), input=(4, 4, 8)), BOARD, "weight buffer"),
        (SPECS["digits"], replace(BOARD, budget=BOARD.budget | dict(ebr=26)), "block RAM"),
        (SPECS["digits"], replace(BOARD, memory_ebr=4), "block RAM"),
        (SPECS["digits"], replace(BOARD, budget=BOARD.budget | dict(dsp=4)), "multipliers"),
    ],
)
def test_each_resource_is_refused_by_its_name(spec, board, resource):
    assert names_of(refused(spec, board)) == {resource}


def test_more_folds_than_the_program_can_say_are_refused():
    error = refused(NetworkSpec(depth=4, widths=(272,), input=(2, 2, 1), classes=2))
    assert names_of(error) >= {"folds of a layer", "weight buffer"}


def test_a_logit_that_may_overflow_is_refused():
    formats = NumberFormats(residual_width=16, residual_fraction=8)
    spec = NetworkSpec(depth=4, widths=(16,), input=(40, 40, 1), formats=formats)
    assert "accumulator" in names_of(refused(spec))


def test_the_greatest_window_and_weight_buffers_fit():
    window = NetworkSpec(depth=4, widths=(16,), input=(4, 124, 1))
    weights = NetworkSpec(depth=6, widths=(32, 128), input=(4, 4, 1))
    for spec, name, size in ((window, "window", 64), (weights, "weight", 256)):
        resources = make_plan(network_of(spec), BOARD).resources
        part = next(part for part in resources if part.name.startswith(f"{name} buffer"))
        assert part.used == part.available == size
