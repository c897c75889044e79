"""Packed networks: the same numbers in a tenth of the bytes, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import pack as command
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.methods import isolated
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint, untrained
from bnnhw.nn.packed import pack, unpack

SMALL = dict(depth=8, widths=(6, 10, 12), input=(8, 8, 1), classes=3)
MORE_THAN_SIGNS = {"binary_sets=adabin", "scaling=channel-mean"}


@pytest.mark.parametrize("name", checkpoint.bundled_names())
def test_a_bundled_network_keeps_every_integer(tmp_path, name):
    before = checkpoint.load(checkpoint.bundled(name))
    checkpoint.save(tmp_path / "small.pt", before.model(), before.metrics, packed=True)
    after = checkpoint.load(tmp_path / "small.pt")
    assert after.packed and after.metrics == before.metrics and after.spec == before.spec
    ours, theirs = lower(before), lower(after)
    for mine, other in zip(ours.convolutions, theirs.convolutions, strict=True):
        assert np.array_equal(mine.weights, other.weights)
        assert (mine.requantiser is None) == (other.requantiser is None)
        if mine.requantiser is not None and other.requantiser is not None:
            assert np.array_equal(mine.requantiser.scale, other.requantiser.scale)
            assert np.array_equal(mine.requantiser.bias, other.requantiser.bias)
    assert np.array_equal(ours.stem.weights, theirs.stem.weights)
    assert (tmp_path / "small.pt").stat().st_size < 80_000


@pytest.mark.parametrize("method", isolated(), ids=lambda method: method.name)
def test_every_method_is_packed_exactly_or_refused(method):
    model = untrained(NetworkSpec(**SMALL, repair=method.repair)).eval()
    if method.name in MORE_THAN_SIGNS:
        with pytest.raises(UserError, match=r"stage0.0.conv1: .*cannot be packed"):
            pack(model)
        return
    state = unpack(pack(model), model.spec)
    assert state.keys() == model.state_dict().keys()
    again = untrained(model.spec, 1)
    again.load_state_dict(state)
    pixels = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(model(pixels), again.eval()(pixels))


def test_a_packed_file_is_checked(tmp_path):
    path = tmp_path / "model.pt"
    checkpoint.save(path, untrained(NetworkSpec(**SMALL)), packed=True)
    content = torch.load(path, weights_only=True)
    for key, wrong in (("signs", torch.zeros(3, dtype=torch.uint8)), ("numbers", None)):
        torch.save(content | {"packed": content["packed"] | {key: wrong}}, path)
        with pytest.raises(UserError, match=f"model.pt: packed.{key}: the spec needs"):
            checkpoint.load(path)
    torch.save(content | {"packed": [1]}, path)
    with pytest.raises(UserError, match="must have the tensors signs, numbers, counters"):
        checkpoint.load(path)


def test_the_command(tmp_path):
    out = tmp_path / "small.pt"
    told = CliRunner().invoke(command.main, ["resnet8-digits", "--out", str(out)])
    assert told.exit_code == 0 and "bytes" in told.output and checkpoint.load(out).packed
    assert CliRunner().invoke(command.main, ["nowhere.pt", "--out", str(out)]).exit_code == 2
