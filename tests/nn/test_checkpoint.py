"""model.pt: round trip, and every kind of file that is not one."""

from __future__ import annotations

import hashlib
import pickle
import zipfile

import pytest
import torch

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import checkpoint, untrained

SPEC = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 9, 1), classes=3, repair=Repair("rsign"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    checkpoint.save(path, untrained(SPEC, 5), dict(seed=5, accuracy=dict(integer=12.5)))
    return path


def change(path, **entries):
    content = torch.load(path, weights_only=True)
    content.update(entries)
    torch.save(content, path)


def change_state(path, name, tensor):
    state = torch.load(path, weights_only=True)["state"]
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    change(path, state=state)


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 300
    return message


def test_round_trip(path):
    loaded = checkpoint.load(path)
    assert loaded.spec == SPEC
    assert loaded.metrics == dict(seed=5, accuracy=dict(integer=12.5))
    pixels = torch.randint(0, 256, (4, 1, 8, 9), dtype=torch.uint8)
    assert torch.equal(loaded.model()(pixels), untrained(SPEC, 5)(pixels))
    assert not loaded.model().training
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pt"]
    assert checkpoint.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_of_version_1_keep_the_slopes_they_were_trained_with(path):
    spec = NetworkSpec(depth=4, widths=(4,), input=(8, 8, 1), repair=Repair(activation="maxout"))
    model = untrained(spec)
    with torch.no_grad():
        model.convolutions[0].activation.negative[:2] = torch.tensor([-0.5, 9.0])
        model.convolutions[0].activation.positive[:2] = torch.tensor([-0.25, 0.5])
    checkpoint.save(path, model)
    name = "convolutions.0.activation.negative"
    assert checkpoint.load(path).state[name][:2].tolist() == [-0.5, 9.0]
    change(path, version=1)
    slopes = checkpoint.load(path).model().layers()[0].activation.slopes()
    assert [values[:2].tolist() for values in slopes] == [
        pytest.approx([0.0, 7.99]), pytest.approx([0.0, 0.5]),
    ]  # fmt: skip


class _Hostile:
    def __reduce__(self):
        return (open, ("hostile-was-here", "w"))


def test_hostile_files_run_nothing(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change(path, metrics=_Hostile())
    assert "it holds more than tensors and plain values" in refused(path)
    path.write_bytes(pickle.dumps(_Hostile()))
    refused(path)
    torch.save(_Hostile(), path, _use_new_zipfile_serialization=False)
    refused(path)
    assert not (tmp_path / "hostile-was-here").exists()


def test_foreign_and_damaged_files(path, tmp_path):
    assert "No such file" in refused(tmp_path / "none.pt")
    assert "give a model.pt" in refused(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"hello\n", whole[: len(whole) // 2], whole[:-100], whole[100:],
                    b"\x80\x02}q\x00.", bytes(1000)):  # fmt: skip
        path.write_bytes(content)
        refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    refused(path)
    for foreign in ({"weight": torch.zeros(2)}, [1, 2], torch.zeros(3), "text"):
        torch.save(foreign, path)
        assert "a PyTorch file, but not a bnnhw-model" in refused(path)


def test_damage_in_the_middle_is_found_or_harmless(path):
    whole = bytearray(path.read_bytes())
    for at in range(200, len(whole), len(whole) // 40):
        damaged = whole.copy()
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            checkpoint.load(path)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (dict(version=3), "version 3 of bnnhw-model, this bnnhw reads 1 and 2"),
        (dict(spec=None), "spec: must be a table"),
        (dict(spec=dict(depth=9)), "depth=9: must be 6n"),
        (dict(spec=dict(SPEC.to_dict(), magic=1)), "unknown setting 'magic'"),
        (dict(spec=dict(SPEC.to_dict(), depth=14)), "is missing; the file does not fit its own"),
        (dict(spec=dict(SPEC.to_dict(), classes=4)), r"float32 \(3, 8\), the spec needs .*\(4, 8"),
        (dict(state=[1]), "state must be a table of tensors, not list"),
        (dict(metrics=3), "metrics must be a table, not int"),
    ],
)
def test_wrong_entries(path, entries, message):
    change(path, **entries)
    assert __import__("re").search(message, refused(path))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("stem.weight", None, "'stem.weight'] is missing"),
        ("stem.extra", torch.zeros(1), "'stem.extra'] belongs to no such network"),
        ("head.bias", torch.zeros(3, 1), "is float32 (3, 1), the spec needs float32 (3,)"),
        ("head.bias", torch.zeros(3, dtype=torch.float64), "is float64 (3,)"),
        ("head.bias", torch.tensor([0.0, float("nan"), 0.0]), "has NaN or infinite values"),
        ("head.bias", torch.tensor([0.0, float("inf"), 0.0]), "has NaN or infinite values"),
        ("head.bias", 3.0, "must be a plain tensor"),
        ("head.bias", torch.zeros(3).to_sparse(), "must be a plain tensor"),
    ],
)
def test_wrong_state(path, name, tensor, message):
    change_state(path, name, tensor)
    assert message in refused(path)


def test_unwritable_place(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint.save(tmp_path / "none" / "model.pt", untrained(SPEC))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint.save(tmp_path / "folder", untrained(SPEC))


def test_bundled_names():
    names = checkpoint.bundled_names()
    assert "resnet8-digits" in names
    assert checkpoint.find("resnet8-digits") == checkpoint.bundled("resnet8-digits")
    with pytest.raises(UserError, match="no such bundled model; there are .*resnet8-digits"):
        checkpoint.bundled("resnet9")
