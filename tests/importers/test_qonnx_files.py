"""Files of QONNX: what a file may hold, and what is told of one that cannot come in."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from onnx import TensorProto, helper, numpy_helper

from bnnhw.errors import UserError
from bnnhw.importers import import_qonnx
from bnnhw.network import real
from tests.importers.brevitas_network import random
from tests.importers.test_qonnx import GIVEN, pixels, theirs


@pytest.fixture(scope="module")
def model():
    return random(2)


@pytest.fixture(scope="module")
def exported(model):
    """An onnx.ModelProto of the TorchScript exporter."""
    return export_qonnx(model, torch.zeros(1, 1, 8, 8), dynamo=False)


@pytest.fixture
def copy(exported):
    result = onnx.ModelProto()
    result.CopyFrom(exported)
    return result


@pytest.fixture(scope="module")
def dynamo(model, tmp_path_factory):
    """The folder of net.onnx and its external data."""
    folder = tmp_path_factory.mktemp("dynamo")
    image = torch.zeros(1, 1, 8, 8)
    content = export_qonnx(model, image, dynamo=True, optimize=True)
    onnx.save_model(content, folder / "net.onnx", save_as_external_data=True,
                    location="net.onnx.data", size_threshold=0)  # fmt: skip
    return folder


def node_of(model, kind, at=0):
    return [node for node in model.graph.node if node.op_type == kind][at]


def same(model, network):
    np.testing.assert_allclose(real.run(network, pixels()), theirs(model, pixels()), atol=1e-5)


@pytest.mark.usefixtures("one_thread")
def test_both_exporters(model, exported, dynamo, tmp_path):
    onnx.save(exported, tmp_path / "net.onnx")
    assert (dynamo / "net.onnx.data").stat().st_size > 40_000  # the weights are in there
    for folder in (tmp_path, dynamo):
        same(model, import_qonnx(folder / "net.onnx", **GIVEN))


def outside(dynamo, tmp_path, location):
    """The dynamo exporter's file in a folder of its own, its weights elsewhere."""
    content = onnx.load(dynamo / "net.onnx", load_external_data=False)
    for tensor in content.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(content.SerializeToString())
    return folder


@pytest.mark.parametrize(
    "location", ["../net.onnx.data", "/etc/passwd", "a/../../net.onnx.data", ""]
)
def test_weights_outside_of_the_folder_are_refused(dynamo, tmp_path, location):
    (tmp_path / "net.onnx.data").write_bytes((dynamo / "net.onnx.data").read_bytes())
    folder = outside(dynamo, tmp_path, location)
    with pytest.raises(UserError, match="net.onnx: .*outside of the file's folder; refused"):
        import_qonnx(folder / "net.onnx", **GIVEN)


def test_a_link_out_of_the_folder_is_refused(dynamo, tmp_path):
    folder = outside(dynamo, tmp_path, "data")
    (tmp_path / "data").write_bytes((dynamo / "net.onnx.data").read_bytes())
    (folder / "data").symlink_to(tmp_path / "data")
    with pytest.raises(UserError, match="outside of the file's folder; refused"):
        import_qonnx(folder / "net.onnx", **GIVEN)


def test_a_model_in_memory_reads_no_files(dynamo, monkeypatch):
    monkeypatch.chdir(dynamo)
    content = onnx.load(dynamo / "net.onnx", load_external_data=False)
    with pytest.raises(UserError, match="weights are in another file; give the file's path"):
        import_qonnx(content, **GIVEN)


def test_weights_that_are_missing_or_torn(dynamo, tmp_path):
    folder = outside(dynamo, tmp_path, "data")
    with pytest.raises(UserError, match="its weights are in 'data', which is no file"):
        import_qonnx(folder / "net.onnx", **GIVEN)
    (folder / "data").write_bytes((dynamo / "net.onnx.data").read_bytes()[:5000])
    with pytest.raises(UserError, match="data ends before its weights do"):
        import_qonnx(folder / "net.onnx", **GIVEN)


def test_a_files_operations_import_nothing(copy, tmp_path, monkeypatch):
    """qonnx imports the module that an operation's domain names."""
    (tmp_path / "evil_operations.py").write_text("raise SystemExit('this was run')")
    monkeypatch.syspath_prepend(tmp_path)
    node_of(copy, "PRelu").domain = "evil_operations"
    with pytest.raises(UserError, match=r"\(evil_operations.PRelu\), .* is not understood"):
        import_qonnx(copy, **GIVEN)
    assert "evil_operations" not in sys.modules


def test_a_node_that_is_not_understood_is_named_with_its_neighbours(copy, tmp_path):
    node_of(copy, "PRelu", 1).op_type = "Softplus"
    onnx.save(copy, tmp_path / "net.onnx")
    with pytest.raises(UserError) as told:
        import_qonnx(tmp_path / "net.onnx", **GIVEN)
    line = str(told.value)
    assert line.startswith(f"{tmp_path}/net.onnx: node /blocks/blocks.0/act/prelu/PRelu (Softplus)")
    assert "after /blocks/blocks.0/Add (Add), before " in line and "BipolarQuant" in line


def change(copy, kind, at, **attributes):
    node = node_of(copy, kind, at)
    kept = [part for part in node.attribute if part.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())


def weights(copy, name, array):
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))


def bend(copy):
    node = node_of(copy, "Add", 1)
    node.op_type = "Mul"


def drop_pooling(copy):
    node_of(copy, "ReduceMean").op_type = "Identity"
    del node_of(copy, "Identity").attribute[:], node_of(copy, "Identity").input[1:]


def ternary(copy):
    node = node_of(copy, "BipolarQuant", 1)
    node.op_type, node.domain = "Identity", ""
    del node.input[1:]


def many_bits(copy):
    node = node_of(copy, "BipolarQuant", 0)
    levels = numpy_helper.from_array(np.array([[-0.5, 0, 0.5]], np.float32), "levels")
    copy.graph.initializer.append(levels)
    node.op_type, node.input[1] = "MultiThreshold", "levels"
    node.attribute.append(helper.make_attribute("out_dtype", "UINT2"))


def clip(copy):
    node = node_of(copy, "PRelu", 0)
    node.op_type = "Clip"
    del node.input[1:]


def second_output(copy):
    copy.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))


def negative(copy):
    weights(copy, "bn.running_var", -np.ones(16))


def not_finite(copy):
    weights(copy, "fc.weight", np.full((10, 32), np.nan))


def sparse(copy):
    values = numpy_helper.from_array(np.ones(1, np.float32), "values")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    copy.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))


def nested(copy):
    graph = helper.make_graph([], "inside", [], [])
    node_of(copy, "PRelu").attribute.append(helper.make_attribute("body", graph))


def bomb(copy):
    copy.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40]), "size"))
    copy.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["bomb"], "bomb"))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (bend, r"blocks.1/Add \(Mul\), after .*: multiplies two maps"),
        (drop_pooling, r"fc/Gemm \(Gemm\), .*: must be one linear layer of the means"),
        (ternary, r"conv/Conv \(Conv\), .*: its weights of output 0 have 144 values; binary"),
        (many_bits, r"\(MultiThreshold\), .*: has 3 thresholds, so more than one bit"),
        (clip, r"\(Add\), .*: takes a map that is clipped, of which only bits"),
        (sparse, "sparse weights are not understood"),
        (nested, r"\(PRelu\), .* is not understood"),
        (second_output, "has 1 inputs and 2 outputs; must have one of each"),
        (bomb, "tensor bomb: has 1099511627776 values, more than 67108864"),
        (lambda copy: change(copy, "Conv", 1, dilations=[2, 2]), r"dilations=\[2, 2\]: must be 1"),
        (lambda copy: change(copy, "Conv", 0, pads=[0, 0, 0, 0]), r"pads=.*: must be 1"),
        (lambda copy: change(copy, "BatchNormalization", 0, training_mode=1), "export the network"),
        (negative, r"variance\[0\] is not above 0"),
        (not_finite, "nan: must be finite"),
    ],
)  # fmt: skip
def test_what_cannot_come_in_is_named(copy, spoil, fault):
    spoil(copy)
    with pytest.raises(UserError, match=fault) as told:
        import_qonnx(copy, **GIVEN)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (dict(mean=(0.5,)), r"mean=\(0.5,\), std=\(\): give both or none"),
        (dict(mean=(0.5, 0.5), std=(1.0, 1.0)), "give one for each of 1 colours"),
        (dict(mean=(-0.5,), std=(1.0,)), r"pads the image with 0, which is byte -127.5"),
        (dict(mean=(0.5,), std=(0.0,)), "must be finite, std above 0"),
    ],
)
def test_normalisations_that_are_none(copy, given, fault):
    with pytest.raises(UserError, match=fault):
        import_qonnx(copy, **given)


def test_files_that_are_none(tmp_path, exported):
    whole = exported.SerializeToString()
    for name, content in dict(torn=whole[:-999], text=b"a text", empty=b"").items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: "):
            import_qonnx(tmp_path / name, **GIVEN)
    with pytest.raises(UserError, match="No such file or directory; give a readable file"):
        import_qonnx(tmp_path / "none", **GIVEN)


def test_bits_of_multithreshold_and_of_quant(model, copy):
    """Both written in place of a BipolarQuant: the same bits."""
    levels = numpy_helper.from_array(np.zeros((16, 1), np.float32), "levels")
    copy.graph.initializer.append(levels)
    node = node_of(copy, "BipolarQuant", 0)
    node.op_type, node.input[1] = "MultiThreshold", "levels"
    node.attribute.extend(
        helper.make_attribute(*item)
        for item in dict(out_dtype="BIPOLAR", out_scale=2.0, out_bias=-1.0).items()
    )
    node = node_of(copy, "BipolarQuant", 1)  # which is now the second: weights of the first layer
    assert node.input[0] != "conv.weight"
    for name, value in dict(zero=0.0, one=1.0).items():
        copy.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    bits = [each for each in copy.graph.node if each.op_type == "BipolarQuant"][-2]
    bits.op_type = "Quant"
    bits.input.extend(["zero", "one"])
    bits.attribute.extend(
        helper.make_attribute(*item)
        for item in dict(signed=1, narrow=0, rounding_mode="ROUND").items()
    )
    same(model, import_qonnx(copy, **GIVEN))


def test_the_image_may_be_quantised_where_nothing_is_rounded(model, copy):
    """Quant of the image: by 1/64 bytes stay what they are, by 1/50 they do not."""
    graph = copy.graph
    graph.input[0].name, before = "image", graph.input[0].name
    for name, value in dict(scale=1 / 64, zero=0.0, width=8.0).items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    node = helper.make_node(
        "Quant", ["image", "scale", "zero", "width"], [before], "first", signed=1, narrow=0,
        rounding_mode="ROUND", domain="qonnx.custom_op.general",
    )  # fmt: skip
    graph.node.insert(0, node)
    with torch.no_grad():
        images = torch.from_numpy(pixels())
        logits = model((images.float() - 128).permute(0, 3, 1, 2) / 64)
    expected = getattr(logits, "value", logits).numpy()
    np.testing.assert_allclose(real.run(import_qonnx(copy), pixels()), expected, atol=1e-5)
    weights(copy, "scale", np.array(1 / 50))
    with pytest.raises(UserError, match="takes pixels that are not proportional to their bytes"):
        import_qonnx(copy)
