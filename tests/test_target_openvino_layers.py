"""Per-layer SQNR on OpenVINO: against truncated models and the ONNX reference, and with damage that is planted."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import load
from onnx.helper import make_tensor_value_info
from onnx.reference import ReferenceEvaluator
from onnx_files import DYNAMIC, HALF, STATIC, conv_net, dense_net, items, make_job, outputs, sign_net, transformer_net

from harness.api import Artifact, Model, Options, Precision
from harness.measure.layers import compared
from harness.types import Layers as Compared
from harness_openvino import harness_targets
from harness_openvino.layers import Layers, outputs_of
from harness_openvino.params import Params
from harness_openvino.probe import import_openvino

if any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")):
    pytest.skip("openvino or nncf is not installed", allow_module_level=True)
ov = import_openvino()
(SPEC,) = harness_targets()
INT4 = Precision(weights="int4", scheme="weight-only")
INT8 = Precision(weights="int8", scheme="weight-only")
BINARY = Precision(weights="binary", activations="binary", scheme="static", storage="packed")


def lowered(model: Model, folder: Path, precision: Precision | None = None) -> Artifact:
    model = dataclasses.replace(model, precision=precision or Precision())
    return SPEC.lower(model, Params(), Options(), make_job(folder, model))


def nets_of(model: Model, folder: Path, precision: Precision, count: int = 48) -> SimpleNamespace:
    """Lower a model twice and save the items that both run on."""
    evaluation = folder / "test"
    evaluation.mkdir()
    feed = items(model, count)
    for name, array in feed.items():
        np.save(evaluation / f"{name}.npy", array)
    anchor, artifact = lowered(model, folder / "float"), lowered(model, folder / "other", precision)
    return SimpleNamespace(model=model, feed=feed, evaluation=evaluation, anchor=anchor, artifact=artifact)


def compare(nets: SimpleNamespace, *, batch: int = 8, count: int = 48) -> Compared:
    opened = [SPEC.open(item, Params(), Options(batch=batch), "accuracy") for item in (nets.artifact, nets.anchor)]
    found = compared(*opened, nets.evaluation, target="openvino", batch=batch, items=count)
    for session in opened:
        session.close()
    return found


def by_name(found: Compared) -> dict[str, float]:
    return {item.name: item.sqnr_db for item in found.outputs}


def truncated(path: Path, friendly: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Return what an IR that ends at an operation gives."""
    model = ov.Core().read_model(str(path))
    (last,) = (node for node in model.get_ops() if node.get_friendly_name() == friendly)
    cut = ov.Model([last.output(0)], model.get_parameters(), "cut")
    return ov.compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feed)[0]


def reference(model: Model, names: tuple[str, ...], feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors of the float file as onnx's own numpy code computes them."""
    graph = load(str(model.path))
    del graph.graph.output[:]
    graph.graph.output.extend(make_tensor_value_info(name, 1, None) for name in names)
    return dict(zip(names, ReferenceEvaluator(graph).run(None, feed), strict=True))


def test_static_int8_is_what_numpy_computes_from_truncated_models(tmp_path: Path) -> None:
    nets = nets_of(conv_net(tmp_path), tmp_path, STATIC)
    ends = {
        "b": "relu0/fq_output_0",
        "d": "relu1/fq_output_0",
        "e": "pool/fq_output_0",
        "f": "flat",
        "logits": "logits",
    }
    wanted = {}
    for name, right in reference(nets.model, tuple(ends), nets.feed).items():
        apart = right.astype(float) - truncated(nets.artifact.path, ends[name], nets.feed)
        wanted[name] = 10 * np.log10(np.sum(right.astype(float) ** 2) / np.sum(apart**2))
    found = compare(nets)
    assert by_name(found) == pytest.approx(wanted, abs=1e-3)
    assert all(30 < value < 60 for value in wanted.values())
    assert {item.name: item.op for item in found.outputs} == {
        "b": "Relu", "d": "Relu", "e": "ReduceMean", "f": "Reshape", "logits": "MatMul"
    }  # fmt: skip
    assert [item.place for item in sorted(found.outputs, key=lambda item: item.name)] == [1, 2, 3, 4, 5]
    assert (found.items, found.unmatched) == (48, 0)  # "a" and "c" are within the convolutions' kernels of both


def test_further_outputs_leave_the_integer_kernels_and_the_last_bit(tmp_path: Path) -> None:
    nets = nets_of(conv_net(tmp_path), tmp_path, STATIC)
    core, seen = ov.Core(), []

    def compile_model(model: Any) -> Any:
        seen.append(core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
        return seen[-1]

    model = core.read_model(str(nets.artifact.path))
    compiled = compile_model(model)
    compiled(nets.feed)  # a product's kernel is chosen when the batch is known
    last = {
        item.name: item.values for item in Layers(compile_model, model, compiled.get_runtime_model()).run(nets.feed)
    }
    np.testing.assert_array_equal(last["logits"], outputs(SPEC, nets.artifact, nets.feed)["logits"])
    assert len(model.outputs) == 1
    kernels = [
        sorted(
            (kind, str(node.get_rt_info()["primitiveType"].astype(str)))
            for node in item.get_runtime_model().get_ordered_ops()
            if (kind := str(node.get_rt_info()["layerType"].astype(str))) in {"Convolution", "FullyConnected", "Reduce"}
        )
        for item in seen
    ]
    assert len(kernels[0]) == 4
    assert kernels[0] == kernels[1]
    assert {name.rpartition("_")[2] for _kind, name in kernels[0]} == {"I8"}


def test_planted_damage_is_found_where_it_is(tmp_path: Path) -> None:
    nets = nets_of(conv_net(tmp_path), tmp_path, Precision())
    model = ov.Core().read_model(str(nets.anchor.path))
    (weight,) = (node for node in model.get_ops() if node.get_friendly_name() == "conv1.weight")
    hurt = ov.opset13.constant(weight.data + np.float32(0.2))
    for end in weight.output(0).get_target_inputs():
        end.replace_source_output(hurt.output(0))
    ov.save_model(model, tmp_path / "hurt.xml", compress_to_fp16=False)
    nets.artifact = dataclasses.replace(nets.anchor, path=tmp_path / "hurt.xml")
    decibels = by_name(compare(nets))
    assert decibels.pop("b") == 300
    assert set(decibels) == {"d", "e", "f", "logits"}
    assert all(value < 60 for value in decibels.values())


@pytest.mark.parametrize(("precision", "least"), [(HALF, 50), (DYNAMIC, 30), (INT8, 35), (INT4, 10)])
def test_every_tensor_is_compared_where_files_keep_its_name(tmp_path: Path, precision: Precision, least: float) -> None:
    found = compare(nets_of(dense_net(tmp_path), tmp_path, precision))
    assert {item.name: item.op for item in found.outputs} == {"c": "Relu", "d": "MatMul", "y": "MatMul"}
    assert found.unmatched == 0
    assert all(least < value < 120 for value in by_name(found).values())


def test_a_network_of_products_is_compared_too(tmp_path: Path) -> None:
    found = compare(nets_of(transformer_net(tmp_path), tmp_path, STATIC, 12), batch=1, count=12)
    assert {"query.flat", "mixed", "sum0", "norm0", "active", "logits"} <= set(by_name(found))
    assert all(10 < value < 100 for value in by_name(found).values())


def test_bits_are_not_taken_for_the_tensor_that_they_are_the_signs_of(tmp_path: Path) -> None:
    found = compare(nets_of(sign_net(tmp_path), tmp_path, BINARY))
    assert {item.name: item.op for item in found.outputs} == {"y1": "BinaryConvolution"}
    assert by_name(found)["y1"] > 100  # xnor and popcount compute what the float file does
    assert found.unmatched == 3  # the signs, and the first layer's output, which leaves its kernel as bits


def test_of_two_grids_the_first_is_read_and_integers_are_no_layers() -> None:
    ops = ov.opset13
    given = ops.parameter([1, 16], np.float32)
    relu = ops.relu(given)
    relu.output(0).get_tensor().set_names({"relu"})
    grids = [ops.fake_quantize(relu, 0.0, high, 0.0, high, 256) for high in (np.float32(1), np.float32(2))]
    products = [ops.matmul(grid, np.ones((16, 4), np.float32), False, False) for grid in grids]
    total = ops.add(*products)
    total.output(0).get_tensor().set_names({"total"})
    whole = ops.convert(total, "i32")
    whole.output(0).get_tensor().set_names({"whole"})
    model = ov.Model([whole], [given], "two grids")
    compile_model = partial(ov.Core().compile_model, device_name="CPU", config={"INFERENCE_PRECISION_HINT": "f32"})
    found = outputs_of(model, compile_model(model).get_runtime_model())
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert found["relu"] == ((names[0], 0), "Relu")
    assert "whole" not in found
