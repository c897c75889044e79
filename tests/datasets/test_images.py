"""Data sets: the published layout, the splits, and files that are wrong or hostile."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from bnnhw import datasets
from bnnhw.errors import UserError


def write_cifar(folder, counts, *, labels="labels", classes=10):
    """A directory of random CIFAR batches; returns the pixels (N, 32, 32, 3) of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    written = {}
    for name, count in counts.items():
        rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        batch = {b"data": rows, labels.encode(): rng.integers(0, classes, count).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        written[name] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return written


META = pickle.dumps(
    {
        b"label_names": [b"class %d" % label for label in range(10)],
        b"fine_label_names": [b"class %d" % label for label in range(100)],
    },
    protocol=2,
)
CIFAR10 = {**{f"data_batch_{i}": 1020 for i in range(1, 6)}, "test_batch": 30}


def test_cifar10_splits(tmp_path):
    written = write_cifar(tmp_path / "cifar-10-batches-py", CIFAR10)
    for directory in (tmp_path, tmp_path / "cifar-10-batches-py"):
        test = datasets.load("cifar10", directory, "test")
        assert np.array_equal(test.pixels, written["test_batch"])
        assert test.labels.dtype == np.int64 and test.classes == 10 and len(test) == 30
    whole = np.concatenate([written[f"data_batch_{i}"] for i in range(1, 6)])
    train, held = (datasets.load("cifar10", tmp_path, split) for split in ("train", "validation"))
    assert len(train) == 100 and len(held) == datasets.HELD_OUT
    assert np.array_equal(np.concatenate([train.pixels, held.pixels]), whole)
    assert len(train.first(7)) == 7 and len(train.first(None)) == 100


def test_cifar100_has_fine_labels(tmp_path):
    write_cifar(tmp_path / "cifar-100-python", dict(train=5100, test=40), labels="fine_labels",
                classes=100)  # fmt: skip
    assert datasets.load("cifar100", tmp_path).classes == 100
    assert len(datasets.load("cifar100", tmp_path, "train")) == 100


def test_digits_split_once_and_for_all():
    parts = [datasets.load("digits", split=split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert parts[0].pixels.shape == (1257, 8, 8, 1) and parts[0].pixels.dtype == np.uint8
    assert parts[0].pixels.min() == 0 and parts[0].pixels.max() == 255
    again = datasets.load("digits")
    assert np.array_equal(again.pixels, parts[2].pixels)
    assert sorted(np.concatenate([part.labels for part in parts])) == sorted(
        __import__("sklearn.datasets").datasets.load_digits().target
    )


class _Hostile:
    def __reduce__(self):
        return (open, ("hostile-was-here", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Hostile()), "names io.open, which image data never needs"),
        (b"not a pickle", "not a CIFAR batch"),
        (b"", "not a CIFAR batch"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}), "not a CIFAR batch"),
        (pickle.dumps({b"data": np.zeros((2, 8), np.uint8), b"labels": [0, 1]}), "must be uint8"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}), "must be uint8"),
        (pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}), "must be uint8"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}), "as many"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "0 to 9"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}), "as many"),
        (pickle.dumps([1, 2]), "not a CIFAR batch"),
    ],
)
def test_wrong_files_give_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        datasets.load("cifar10", tmp_path)
    assert "\n" not in str(caught.value) and "test_batch" in str(caught.value)
    assert not (tmp_path / "hostile-was-here").exists()


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match="give the directory that holds data_batch_1"):
        datasets.load("cifar10", tmp_path)
    with pytest.raises(UserError, match="give --data with the cifar-10-batches-py directory"):
        datasets.load("cifar10")
    with pytest.raises(UserError, match="choose one of cifar10, cifar100, digits"):
        datasets.load("mnist")
    with pytest.raises(UserError, match="choose one of train, validation, test"):
        datasets.load("digits", split="val")
    write_cifar(tmp_path, {name: 10 for name in CIFAR10})
    with pytest.raises(UserError, match="50 training images, more than 5000 are needed"):
        datasets.load("cifar10", tmp_path, "train")


def test_guess_goes_by_shape_and_classes():
    assert datasets.guess((32, 32, 3), 10) == "cifar10"
    assert datasets.guess((32, 32, 3), 100) == "cifar100"
    assert datasets.guess((8, 8, 1), 10) == "digits"
    with pytest.raises(UserError, match="no data set that comes along has images of 24x24x1"):
        datasets.guess((24, 24, 1), 7)
