"""Per-layer SQNR: against ONNX Runtime's own debugging tool, with damage that is planted, and in closed form."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import records
from bench_targets import install, member
from onnx_files import DYNAMIC, HALF, STATIC, conv_net, items, make_job, outputs, transformer_net

from harness.api import LayerOutput, Options, Precision, TensorSpec, Unsupported
from harness.cli.main import call
from harness.leaderboard.digits import MINUS
from harness.measure.layers import compared, measure_layers
from harness.report.beyond import layers_page
from harness.store import RunStore
from harness.types import LayerDamage, Layers

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from harness_onnxruntime import harness_targets  # noqa: E402  as above
from harness_onnxruntime.layers import outputs_of  # noqa: E402
from harness_onnxruntime.params import Params  # noqa: E402

(SPEC,) = harness_targets()
WEIGHT_ONLY = Precision(weights="int8", scheme="weight-only")


def lowered(model, folder, precision=None, params=None):
    model = dataclasses.replace(model, precision=precision or Precision())
    return SPEC.lower(model, params or Params(), Options(), make_job(folder, model))


def save_items(model, folder, count=48):
    folder.mkdir(exist_ok=True)
    feed = items(model, count)
    for name, array in feed.items():
        np.save(folder / f"{name}.npy", array)
    return feed


def compare(artifact, anchor, evaluation, *, batch=8, count=48, params=None):
    sessions = [SPEC.open(item, params or Params(), Options(batch=batch), "accuracy") for item in (artifact, anchor)]
    found = compared(*sessions, evaluation, target="onnxruntime", batch=batch, items=count)
    for session in sessions:
        session.close()
    return found


def by_name(found):
    return {item.name: item.sqnr_db for item in found.outputs}


@pytest.fixture
def nets(tmp_path):
    model = conv_net(tmp_path)
    feed = save_items(model, tmp_path / "test")
    return SimpleNamespace(
        model=model, feed=feed, anchor=lowered(model, tmp_path / "float"), evaluation=tmp_path / "test", folder=tmp_path
    )


def test_static_int8_agrees_with_onnx_runtimes_own_tool(nets):
    from onnxruntime.quantization import qdq_loss_debug as tool

    artifact = lowered(nets.model, nets.folder / "int8", STATIC)
    found = compare(artifact, nets.anchor, nets.evaluation)
    activations = []
    for name, path in (("float", nets.anchor.path), ("int8", artifact.path)):
        grown = nets.folder / f"{name}-grown.onnx"
        tool.modify_model_output_intermediate_tensors(str(path), str(grown))
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        activations.append(tool.collect_activations(str(grown), iter([nets.feed]), settings))
    theirs = tool.compute_activation_error(tool.create_activation_matching(activations[1], activations[0]))
    wanted = {name: errors["xmodel_err"] for name, errors in theirs.items() if name in by_name(found)}
    assert {"b", "d", "e", "f"} <= set(wanted)
    assert {name: by_name(found)[name] for name in wanted} == pytest.approx(wanted, abs=0.3)
    assert found.items == 48
    assert found.unmatched == 2  # each convolution before its Relu, which the file has no more


def test_the_last_layer_is_to_the_bit_what_the_session_gives(nets):
    artifact = lowered(nets.model, nets.folder / "int8", STATIC)
    session = SPEC.open(artifact, Params(), Options(), "accuracy")
    last = {item.name: item.values for item in session.layers(nets.feed)}
    np.testing.assert_array_equal(last["logits"], session.run(nets.feed)["logits"])
    session.close()
    wanted = outputs(SPEC, nets.anchor, nets.feed)["logits"].astype(float)
    apart = wanted - outputs(SPEC, artifact, nets.feed)["logits"]
    ratio = 10 * math.log10((wanted**2).sum() / (apart**2).sum())
    assert by_name(compare(artifact, nets.anchor, nets.evaluation))["logits"] == pytest.approx(ratio)


def test_planted_damage_is_found_where_it_is(nets):
    model = onnx.load(str(nets.anchor.path))
    weight = next(item for item in model.graph.initializer if item.name == "conv1.weight")
    values = onnx.numpy_helper.to_array(weight) + np.float32(0.2)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    hurt = nets.folder / "hurt.onnx"
    onnx.save(model, str(hurt))
    found = compare(dataclasses.replace(nets.anchor, path=hurt), nets.anchor, nets.evaluation)
    decibels = by_name(found)
    assert decibels["a"] == decibels["b"] == 300
    assert all(decibels[name] < 60 for name in ("c", "d", "e", "f", "logits"))
    assert [item.sqnr_db for item in found.outputs] == sorted(decibels.values())
    assert {item.name: item.place for item in found.outputs}["c"] == 3
    assert {item.name: item.op for item in found.outputs}["c"] == "Conv"


@pytest.mark.parametrize(("precision", "least"), [(HALF, 50), (DYNAMIC, 20), (WEIGHT_ONLY, 25)])
def test_every_operator_is_compared_where_files_keep_its_name(nets, precision, least):
    found = compare(lowered(nets.model, nets.folder / "other", precision), nets.anchor, nets.evaluation)
    assert set(by_name(found)) == {"a", "b", "c", "d", "e", "f", "logits"}
    assert found.unmatched == 0
    assert all(least < value < 120 for value in by_name(found).values())


def test_a_network_of_products_is_compared_too(tmp_path):
    model = transformer_net(tmp_path)
    save_items(model, tmp_path / "test", 12)
    found = compare(
        lowered(model, tmp_path / "int8", STATIC),
        lowered(model, tmp_path / "float"),
        tmp_path / "test",
        batch=1,
        count=12,
    )
    assert len(found.outputs) >= 5
    assert all(10 < value < 100 for value in by_name(found).values())


def test_an_ort_file_takes_no_outputs(nets):
    artifact = lowered(nets.model, nets.folder / "ort", params=Params(saved="ort"))
    with pytest.raises(Unsupported, match="an ORT file takes no further outputs"):
        compare(artifact, nets.anchor, nets.evaluation)


def test_what_no_input_reaches_and_integer_tensors_are_no_layers():
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["late"], ["y"]),  # written before what it reads, as the conversion to float16 does
        make("DequantizeLinear", ["w", "s"], ["weight"]),
        make("QuantizeLinear", ["x", "s"], ["x_q"]),
        make("DequantizeLinear", ["x_q", "s"], ["x_dq"]),
        make("MatMul", ["x_dq", "weight"], ["m"]),
        make("QuantizeLinear", ["m", "s"], ["m_q"]),
        make("DequantizeLinear", ["m_q", "s"], ["m_first"]),
        make("DequantizeLinear", ["m_q", "s"], ["m_second"]),
        make("Add", ["m_first", "m_second"], ["late"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones(1, np.float32), name) for name in ("w", "s")]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1])], [value("y", 1, [1])], weights)
    assert outputs_of(graph) == {"m": ("m_first", "MatMul"), "late": ("late", "Add"), "y": ("y", "Cast")}


class Told:
    """A session whose layers are given."""

    def __init__(self, batch, make):
        self.inputs = {"x": TensorSpec("float32", (batch, 2))}
        self.outputs = self.inputs
        self.make = make

    def run(self, inputs):
        return inputs

    def close(self):
        pass

    def layers(self, inputs):
        return [LayerOutput(name, "Scale", value) for name, value in self.make(inputs["x"]).items()]


def told(tmp_path, ours, anchor, **changes):
    np.save(tmp_path / "x.npy", np.arange(1, 15, dtype=np.float32).reshape(7, 2))
    known = {"target": "told", "batch": 2, "items": 7} | changes
    return compared(Told(None, ours), Told(None, anchor), tmp_path, **known)


def test_sums_run_over_all_items_and_shapes_must_agree(tmp_path):
    anchor = lambda x: {"a": x, "b": x, "c": x, "d": x, "e": x}  # noqa: E731  a table of outputs
    ours = lambda x: {"a": x * 1.1, "b": x[:1], "d": x * np.nan, "e": x}  # noqa: E731
    with np.errstate(all="ignore"):
        found = told(tmp_path, ours, anchor)
    assert found.outputs == (
        LayerDamage("d", "Scale", 2, -300.0),
        LayerDamage("a", "Scale", 1, pytest.approx(20.0, abs=1e-5)),
        LayerDamage("e", "Scale", 3, 300.0),
    )
    assert (found.unmatched, found.items) == (2, 6)  # three whole batches of two
    assert told(tmp_path, ours, anchor, items=1).items == 1  # one batch, filled up with its last item


def test_a_target_that_does_not_tell_is_a_reason(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    cell = member(tmp_path, "x", ms=0.0)
    found = measure_layers(cell, cell.artifact, items=4, timeout_s=20.0)
    assert found == Layers(reason=f"target {cell.target.name!r} does not tell what its operators give")
    broken = member(tmp_path, "x", mode="segfault", at="open", ms=0.0)
    assert "SIGSEGV" in measure_layers(broken, cell.artifact, items=4, timeout_s=20.0).reason


DAMAGE = Layers(128, (LayerDamage("relu_3", "Conv", 7, 11.25), LayerDamage("logits", "Gemm", 9, -2.5)), 4)


def test_a_cell_shows_its_layers_the_worst_first(tmp_path, capsys):
    anchor = records.record()
    plain = records.record("fp16")
    cell = dataclasses.replace(records.record("int8", placements=()), layers=DAMAGE)
    mute = dataclasses.replace(records.record("int8", target="openvino"), layers=Layers(reason="it does not tell"))
    with RunStore.create(tmp_path, records.info()) as run:
        for item in (anchor, plain, cell, mute):
            run.write_record(item)
    folder = str(run.folder)
    assert call(["placements", folder, "int8@onnxruntime", "--layers"]) == 0
    text = capsys.readouterr().out
    assert text.index("relu_3") < text.index("logits")
    assert "2 outputs with the anchor's, over 128 items" in text
    assert call(["placements", folder, "int8@onnxruntime", "--layers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]["outputs"][0]["sqnr_db"] == 11.25
    for words, why in (
        (["baseline@onnxruntime"], "it is the anchor"),
        (["fp16@onnxruntime"], "its run did not compare them"),
        (["int8@openvino"], "it does not tell"),
        ([], "--layers shows one cell"),
    ):
        assert call(["placements", folder, *words, "--layers"]) == 2
        assert why in capsys.readouterr().err
    page = layers_page(cell)
    assert page.rows[1] == ("logits", "Gemm", "9", f"{MINUS}2.5 dB")
    assert "4 outputs of the anchor have no counterpart" in page.note
    assert layers_page(mute).rows == ()
    assert Path(folder, "cells").is_dir()
