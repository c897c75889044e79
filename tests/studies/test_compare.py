"""python -m bnnhw.compare: it finds a planted error, and says what is wrong with a reference."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import compare, datasets
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import checkpoint, untrained
from bnnhw.studies.compare import LOGITS, real_tensors, shapes

MODEL = "resnet8-digits"
LAYERS = [f"stage{stage}.0.conv{at}" for stage in range(3) for at in (1, 2)]


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*words):
    return CliRunner().invoke(compare.main, [str(word) for word in words])


def told(*words):
    result = invoke(*words, "--json")
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def pixels():
    return datasets.load("digits").first(24).pixels


@torch.inference_mode()
def computed(model, pixels):
    """Every tensor of a model's modules, no stream rounded, as its author's program has them."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    stream = x = model.stem(model.pixels(images))
    found = {"stem": x}
    for layer in model.layers():
        x = layer(x, stream) if layer.shape.shortcut else layer(x)
        stream = x if layer.shape.shortcut else stream
        found[layer.shape.name] = x
    maps = {name: x.permute(0, 2, 3, 1).numpy() for name, x in found.items()}
    return maps | {LOGITS: model.head(stream).numpy()}


def reference(path, model, pixels, tensors=()):
    """Writes what a model computes."""
    found = computed(model, pixels)
    np.savez(path, x=pixels, **{name: found[name] for name in (*tensors, LOGITS)})
    return path


def first(link):
    """The first tensor of a link that departs."""
    return next((d["tensor"] for d in link["departures"] if d["own"] > link["limit"]), None)


def model_of(name=MODEL):
    return checkpoint.load(checkpoint.find(name)).model()


def test_a_network_is_its_own_reference(tmp_path, pixels):
    path = reference(tmp_path / "r.npz", model_of(), pixels, ["stem", *LAYERS])
    code, links = told(MODEL, "--reference", path)
    assert code == 0
    assert [(link["before"], link["after"]) for link in links] == [
        ("reference", "float"), ("float", "rounded"), ("rounded", "integer"),
    ]  # fmt: skip
    for link in links:
        assert [d["tensor"] for d in link["departures"]] == ["stem", *LAYERS, LOGITS]
        assert link["same"] > 0.9
    assert max(d["own"] for d in links[0]["departures"]) < 1e-4
    assert all(0 < d["own"] < 1.001 * d["total"] for d in links[1]["departures"][:-1])
    shown = invoke(MODEL, "--reference", path)
    assert shown.exit_code == 0 and shown.stdout.count("nothing departs") == 3


@pytest.mark.parametrize("layer", ["stage0.0.conv2", "stage1.0.conv1", "stage2.0.conv2"])
def test_one_layers_padding_is_found_and_named(tmp_path, pixels, layer):
    model = model_of()
    wrong = dict(zip(LAYERS, model.layers(), strict=True))[layer]
    wrong.repair = replace(wrong.repair, padding="minus-one")
    assert model.spec.repair.padding == "zero"
    path = reference(tmp_path / "r.npz", model, pixels, ["stem", *LAYERS])
    code, links = told(MODEL, "--reference", path)
    assert code == 1 and first(links[0]) == layer
    owns = {d["tensor"]: d["own"] for d in links[0]["departures"]}
    assert owns.pop(layer) > 0.05 and max(owns.values()) < 1e-4  # only there
    place = next(d["place"] for d in links[0]["departures"] if d["tensor"] == layer)
    size = 8 if layer.startswith("stage0") else 4 if layer.startswith("stage1") else 2
    assert {0, size - 1} & {*place[1:3]}  # at the border
    assert first(links[1]) is None and first(links[2]) is None
    shown = invoke(MODEL, "--reference", path)
    assert shown.exit_code == 1 and f"reference to float: {layer} departs first" in shown.stdout
    bare = reference(tmp_path / "bare.npz", model, pixels)
    code, links = told(MODEL, "--reference", bare)
    assert code == 1 and first(links[0]) == LOGITS and len(links[0]["departures"]) == 1


def test_a_wrong_rounding_and_a_wrong_integer_are_told_apart(tmp_path, pixels, monkeypatch):
    path = reference(tmp_path / "r.npz", model_of(), pixels, LAYERS)
    narrow = model_of()
    formats = replace(narrow.spec.formats, residual_fraction=7)
    spec = replace(narrow.spec, formats=formats)  # its stream saturates at 1
    checkpoint.save(tmp_path / "narrow.pt", narrow)
    content = torch.load(tmp_path / "narrow.pt", weights_only=True)
    torch.save(content | dict(spec=spec.to_dict()), tmp_path / "narrow.pt")
    code, links = told(tmp_path / "narrow.pt", "--reference", path)
    assert code == 1 and first(links[0]) is None and first(links[1]) == "stem"
    from bnnhw.studies import compare as studied

    lower = studied.lower

    def wrong(model):
        network = lower(model)
        layers = list(network.convolutions)
        signs = np.where(np.arange(32) < 4, -1, 1).astype(np.int8)[:, None, None, None]
        layers[3] = replace(layers[3], weights=layers[3].weights * signs)
        return replace(network, convolutions=tuple(layers))

    monkeypatch.setattr(studied, "lower", wrong)
    code, links = told(MODEL, "--reference", path)
    assert code == 1 and [first(link) for link in links] == [None, None, LAYERS[3]]


def test_layers_without_a_shortcut_are_compared_in_float(tmp_path):
    spec = NetworkSpec(8, (4, 4, 4), (8, 8, 1), repair=Repair(double_residual=False))
    model = untrained(spec)
    checkpoint.save(tmp_path / "m.pt", model)
    pixels = datasets.random_pixels(spec.input, 4)
    path = reference(tmp_path / "r.npz", model, pixels, LAYERS)
    _, links = told(tmp_path / "m.pt", "--reference", path)
    names = [[d["tensor"] for d in link["departures"]] for link in links]
    assert names[0] == [*LAYERS, LOGITS] and names[1] == ["stem", *LAYERS, LOGITS]
    assert names[2] == ["stem", *LAYERS[1::2], LOGITS]
    assert first(links[0]) is None


SPEC = NetworkSpec(8, (16, 32, 64), (8, 8, 1))
GOOD = dict(x=np.zeros((2, 8, 8, 1), np.uint8), logits=np.zeros((2, 10), np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(logits=GOOD["logits"]), "x is missing"),
        (dict(x=GOOD["x"]), "logits is missing"),
        (GOOD | dict(stage9=GOOD["x"]), "unknown array 'stage9'; give some of x, stem, stage0.0"),
        (GOOD | dict(x=GOOD["x"] / 255), "x is float64 (2, 8, 8, 1), must be uint8 (2, 8, 8, 1)"),
        (GOOD | dict(logits=GOOD["logits"][:1]), "must be floats (2, 10)"),
        (GOOD | dict(logits=GOOD["logits"] + np.nan), "logits has NaN"),
        (
            GOOD | {LAYERS[0]: np.zeros((2, 16, 8, 8))},
            "stage0.0.conv1 is float64 (2, 16, 8, 8), must be floats (2, 8, 8, 16): images, rows",
        ),
        (GOOD | dict(logits=np.array([[object()] * 10] * 2)), "not an .npz of plain arrays"),
        ({name: array[:0] for name, array in GOOD.items()}, "x is uint8 (0, 8, 8, 1)"),
    ],
)
def test_a_wrong_reference_is_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "r.npz", **arrays)
    result = invoke(MODEL, "--reference", tmp_path / "r.npz")
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "r.npz: " in line and message in line


def test_other_files_are_one_line(tmp_path):
    (tmp_path / "r.npz").write_text("mine")
    for path, message in ((tmp_path / "r.npz", "not an .npz"), (tmp_path / "no.npz", "No such")):
        result = invoke(MODEL, "--reference", path)
        assert result.exit_code == 2 and message in result.stderr


def test_every_tensor_has_its_shape(pixels):
    model = model_of()
    for found in (real_tensors(model.folded(), pixels, rounded=True), computed(model, pixels)):
        assert {name: array.shape[1:] for name, array in found.items()} == shapes(model.spec)
        assert list(found) == list(shapes(model.spec))


def test_what_is_given_takes_the_place_of_a_stream(pixels):
    many = np.concatenate([pixels] * 4)  # more than a batch
    network = model_of().folded()
    free = real_tensors(network, many, rounded=False)
    other = {LAYERS[1]: np.flip(free[LAYERS[1]], 0)}
    found = real_tensors(network, many, rounded=False, given=other)
    for name in ("stem", *LAYERS[:2]):
        assert np.array_equal(found[name], free[name])
    for name in (*LAYERS[2:], LOGITS):
        assert np.allclose(found[name], np.flip(free[name], 0))


def test_an_imported_network_is_compared(tmp_path, pixels):
    model = model_of()
    checkpoint.save(tmp_path / "imported.pt", model.folded())
    assert checkpoint.load(tmp_path / "imported.pt").network is not None
    path = reference(tmp_path / "r.npz", model, pixels, LAYERS)
    code, links = told(tmp_path / "imported.pt", "--reference", path)
    assert code == 0 and [first(link) for link in links] == [None] * 3
