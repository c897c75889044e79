"""A network of Brevitas's layers is trained, comes in three ways, is proved, and goes out again."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from torch import nn

import bnnhw
from bnnhw import datasets, golden
from bnnhw.exporters import export_qonnx as exported_qonnx
from bnnhw.importers import import_brevitas, import_qonnx
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.folded import FoldedNetwork
from bnnhw.nn import checkpoint
from tests.importers.brevitas_network import Foreign
from tests.importers.foreign import fit

MEAN, STD = (128 / 255,), (0.377,)


class Trained(nn.Module):
    """uint8 (B, 1, 8, 8) -> logits. active : whether an activation is after the stem."""

    def __init__(self, active: bool = False, **kind) -> None:
        super().__init__()
        self.net = Foreign(**kind)
        if not active:
            self.net.act = nn.Identity()

    def forward(self, pixels):
        logits = self.net((pixels.float() / 255 - MEAN[0]) / STD[0])
        return getattr(logits, "value", logits)


@dataclass
class Digits:
    """All 1,797 of them."""

    pixels: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def digits() -> Digits:
    parts = [datasets.load("digits", None, split) for split in ("train", "validation", "test")]
    return Digits(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


@pytest.fixture(scope="module")
def model() -> Trained:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    begun, result = time.process_time(), Trained()
    images = datasets.load("digits", None, "train")
    fit(result, images.pixels, images.labels, 12)
    torch.set_num_threads(threads)
    assert time.process_time() - begun < 60
    return result.eval()


@pytest.fixture(scope="module")
def ways(model, tmp_path_factory) -> dict[str, FoldedNetwork]:
    """The network as a module, and from the files of both exporters."""
    folder, image = tmp_path_factory.mktemp("ways"), torch.zeros(1, 1, 8, 8)
    export_qonnx(model.net, image, folder / "script.onnx", dynamo=False)
    content = export_qonnx(model.net, image, dynamo=True, optimize=True)
    onnx.save_model(content, folder / "dynamo.onnx", save_as_external_data=True,
                    location="dynamo.data", size_threshold=0)  # fmt: skip
    given = dict(mean=MEAN, std=STD)
    return {
        "module": import_brevitas(model.net, (8, 8, 1), **given),
        "TorchScript": import_qonnx(folder / "script.onnx", **given),
        "dynamo": import_qonnx(folder / "dynamo.onnx", **given),
    }


FOREIGN = (
    dict(act="none"), dict(act="leaky", bits="norm"), dict(bits="minus"),
    dict(act="prelu", before=True, shortcut="behind"),
)  # fmt: skip


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", FOREIGN, ids=str)
def test_foreign_networks_of_other_kinds(kind, digits):
    """Slopes, paddings, norms and shortcuts of their own: integers within 0.3 points of floats."""
    torch.manual_seed(1)
    model, images = Trained(active=True, **kind), datasets.load("digits", None, "train")
    fit(model, images.pixels, images.labels, 8, anneal=True)
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(digits.pixels).permute(0, 3, 1, 2)).numpy()
    network = import_brevitas(model.net, (8, 8, 1), mean=MEAN, std=STD)
    integers = golden.run(lower(network), digits.pixels)["class"]
    right = [100 * (each == digits.labels).mean() for each in (theirs.argmax(1), integers)]
    assert right[0] > 90 and abs(right[0] - right[1]) <= 0.3, right


@torch.no_grad()
@pytest.mark.parametrize("way", ["module", "TorchScript", "dynamo"])
def test_its_integers_know_as_many_digits(model, ways, digits, way):
    """In an 8-bit stream, within 0.3 points; its real numbers are the module's."""
    theirs = model(torch.from_numpy(digits.pixels).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(real.run(ways[way], digits.pixels), theirs, atol=1e-4)
    integers = golden.run(lower(ways[way]), digits.pixels)["class"]
    right = [100 * (each == digits.labels).mean() for each in (theirs.argmax(1), integers)]
    assert right[0] > 90 and abs(right[0] - right[1]) <= 0.3, right


def test_rounding_to_the_nearest_step_would_lose_digits(ways, digits):
    """What bnnhw.lowering.align is for: slopes near zero leave numbers that rounding turns."""
    plain = lower(replace(ways["module"], rounded=True))
    know, knew = (
        100 * (golden.run(network, digits.pixels)["class"] == digits.labels).mean()
        for network in (lower(ways["module"]), plain)
    )
    assert know - knew > 5, (know, knew)


def test_all_ways_are_one(ways, digits):
    logits = [golden.run(lower(each), digits.pixels[:100])["head.logits"] for each in ways.values()]
    assert all(np.array_equal(each, logits[0]) for each in logits)


def test_it_is_proved_bit_exact(ways, digits, tmp_path):
    """Its generated Verilog equals the golden model in every tensor, on digits."""
    checkpoint.save(tmp_path / "model.pt", ways["TorchScript"], {})
    board = bnnhw.board("icebreaker")
    plan = bnnhw.make_plan(bnnhw.lower(bnnhw.load(tmp_path / "model.pt")), board)
    design = bnnhw.write_design(plan, board, tmp_path / "design")
    proof = bnnhw.prove(design, digits.pixels[:1])
    assert proof.bit_exact and proof.tensors > 10, proof.mismatch


def test_it_goes_out_again(ways, digits):
    """qonnx's executor has the golden model's logits of 100 digits."""
    network, images = lower(ways["dynamo"]), digits.pixels[:100]
    model = ModelWrapper(exported_qonnx(network, batch=100))
    got = execute_onnx(model, {"input": images.transpose(0, 3, 1, 2).astype(np.float32)})
    assert np.array_equal(got["head.logits"], golden.run(network, images)["head.logits"])
