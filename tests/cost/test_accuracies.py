"""Accuracies of trained networks, found for exactly the networks that are measured."""

from __future__ import annotations

from dataclasses import replace

from bnnhw.cost.accuracies import accuracies
from bnnhw.network.repair import BASELINE
from bnnhw.nn import checkpoint
from tests.cost.measuring import DIGITS, trained


def test_accuracies_are_of_exactly_the_spec_and_of_one_protocol(tmp_path):
    sgd = replace(DIGITS, repair=replace(BASELINE, optimizer="sgd"))
    none = replace(DIGITS, repair=replace(BASELINE, stem="thermometer"))
    for seed, integer in enumerate((90.0, 93.0)):
        trained(tmp_path / "runs", DIGITS, integer, seed)
    trained(tmp_path / "runs", sgd, 95.0)
    trained(tmp_path / "runs", DIGITS, 99.0, epochs=100)
    trained(tmp_path / "runs", none, None)
    trained(tmp_path / "runs", replace(DIGITS, widths=(4, 4, 4)), 50.0)
    protocol, found = accuracies(tmp_path, {"baseline": DIGITS, "sgd": sgd, "stem": none})
    assert found == {
        "baseline": dict(mean=91.5, min=90.0, max=93.0, runs=2),
        "sgd": dict(mean=95.0, min=95.0, max=95.0, runs=1),
    }
    assert protocol == ("180 validation images of digits, after 10 epochs of 1257 training images")


def test_accuracy_of_a_single_model(tmp_path):
    path = checkpoint.bundled("resnet8-digits")
    (tmp_path / "my.pt").write_bytes(path.read_bytes())
    (tmp_path / "torn.pt").write_bytes(b"none")
    model = checkpoint.load(path)
    protocol, found = accuracies(tmp_path, {"mine": model.spec, "other": DIGITS})
    known = model.metrics["accuracy"]
    assert found["mine"]["mean"] == known["integer"] and "other" not in found
    assert protocol == f"{known['images']} {known['split']} images of digits"
    assert accuracies(tmp_path / "nothing", {"mine": model.spec}) == (None, {})
