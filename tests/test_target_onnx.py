"""The ONNX library: where weights lie, what a graph costs, and which numbers its quantized files hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_files import CONV_MACS, conv_net, dense_net, items, two_inputs, write

from harness.api import BadModel, Model, Unsupported
from harness_onnx import (
    calibration_batches,
    calibration_items,
    check_file,
    dynamic_int8,
    float_nodes,
    macs_by_node,
    model_io,
    override_nodes,
    qdq,
    quiet,
    save_normalised,
    symmetric_qdq,
    to_float16,
    weight_spans,
    widened,
)
from harness_onnx.einsum import einsums_as_products


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def quantizers(path: Path, op: str = "QuantizeLinear") -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (scale, zero point) of every node of a kind, from the file alone."""
    values = initializers(path)
    return [(values[n.input[1]], values[n.input[2]]) for n in onnx.load(path).graph.node if n.op_type == op]


def test_weight_spans_are_the_bytes_of_the_weights(tmp_path: Path) -> None:
    path = conv_net(tmp_path).path
    raw, values = path.read_bytes(), initializers(path)
    found = {raw[span.offset : span.offset + span.length]: span for span in weight_spans(path)}
    wanted = {name: value for name, value in values.items() if value.ndim > 1}
    assert set(found) == {value.tobytes() for value in wanted.values()}
    assert {span.shape for span in found.values()} == {value.shape for value in wanted.values()}


@pytest.mark.parametrize(("op", "shape", "attributes", "axis"), [
    ("Conv", (4, 3, 1, 1), {}, 0), ("ConvTranspose", (3, 4, 1, 1), {}, 1), ("MatMul", (8, 4), {}, -1),
    ("Gemm", (4, 8), {"transB": 1}, 0), ("Gemm", (8, 4), {}, 1),
])  # fmt: skip
def test_weight_spans_know_the_channel_axis(
    op: str, shape: tuple[int, ...], attributes: dict[str, int], axis: int, tmp_path: Path
) -> None:
    image = [None, 3, 5, 5] if "Conv" in op else [None, 8]
    node = helper.make_node(op, ["x", "w"], ["y"], name="layer", **attributes)
    write(tmp_path / "m.onnx", [node], {"x": image}, {"y": [None] * len(image)}, {"w": np.ones(shape, np.float32)})
    assert [span.axis for span in weight_spans(tmp_path / "m.onnx")] == [axis]


def test_weight_spans_follow_a_quantized_weight(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    qdq(model.path, tmp_path / "q.onnx", calibration_batches(items(model), 16))
    spans = {span.shape: span for span in weight_spans(tmp_path / "q.onnx")}
    assert {spans[shape].dtype for shape in ((8, 3, 3, 3), (16, 8, 3, 3), (10, 16))} == {"int8"}
    assert all(span.axis == 0 for span in spans.values())


def test_macs_are_those_counted_by_hand(tmp_path: Path) -> None:
    path = conv_net(tmp_path).path
    assert macs_by_node(path) == CONV_MACS
    assert macs_by_node(path, batch=4) == {name: 4 * macs for name, macs in CONV_MACS.items()}


def test_macs_of_quantized_files_are_the_same(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    qdq(model.path, tmp_path / "q.onnx", calibration_batches(items(model), 16))
    assert macs_by_node(tmp_path / "q.onnx") == CONV_MACS
    dynamic_int8(model.path, tmp_path / "d.onnx")
    assert sum(macs_by_node(tmp_path / "d.onnx").values()) == sum(CONV_MACS.values())


@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4)])
def test_macs_of_recurrent_layers(op: str, gates: int, tmp_path: Path) -> None:
    steps, features, hidden = 7, 5, 6
    weights = {
        "w": np.ones((2, gates * hidden, features), np.float32),
        "r": np.ones((2, gates * hidden, hidden), np.float32),
    }
    node = helper.make_node(op, ["x", "w", "r"], ["y"], name="rnn", hidden_size=hidden, direction="bidirectional")
    write(tmp_path / "m.onnx", [node], {"x": [steps, 3, features]}, {"y": [steps, 2, 3, hidden]}, weights)
    assert macs_by_node(tmp_path / "m.onnx") == {"rnn": steps * 3 * 2 * gates * hidden * (features + hidden)}


def test_model_io_and_normalised_batch_name(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    assert model_io(model.path)[0] == dict(model.inputs)
    save_normalised(model.path, tmp_path / "out.onnx")
    graph = onnx.load(tmp_path / "out.onnx").graph
    names = {item.type.tensor_type.shape.dim[0].dim_param for item in (*graph.input, *graph.output)}
    assert names == {"batch"}


def test_static_int8_scales_follow_the_onnx_specification(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    feed = items(model)
    qdq(model.path, tmp_path / "q.onnx", calibration_batches(feed, 48))
    values = initializers(tmp_path / "q.onnx")
    nodes = onnx.load(tmp_path / "q.onnx").graph.node
    node = next(n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] == "image")
    scale, zero = values[node.input[1]], values[node.input[2]]
    low, high = float(feed["image"].min()), float(feed["image"].max())
    assert zero.dtype == np.uint8
    assert scale == pytest.approx((high - low) / 255, rel=1e-5)
    assert int(zero) == round(-low / float(scale))
    weights = initializers(model.path)["conv1.weight"]
    scales = values["conv1.weight_scale"]
    assert scales == pytest.approx(np.abs(weights).max((1, 2, 3)) / 127, rel=1e-5)
    stored = values["conv1.weight_quantized"]
    assert stored.dtype == np.int8
    assert np.abs(stored * scales[:, None, None, None] - weights).max() <= scales.max() / 2 * 1.001


def test_fewer_calibration_items_are_used_when_asked(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    feed = items(model)
    feeds = calibration_batches(feed, 20)
    assert [len(part["image"]) for part in feeds] == [16, 4]
    qdq(model.path, tmp_path / "q.onnx", feeds)
    used = feed["image"][:20]
    scales = [float(scale) for scale, _ in quantizers(tmp_path / "q.onnx")]
    assert any(scale == pytest.approx((used.max() - used.min()) / 255, rel=1e-5) for scale in scales)


@pytest.mark.parametrize(("batch", "samples", "wanted"), [
    (None, 20, [range(16), range(16, 20)]), (1, 3, [[0], [1], [2]]), (4, 6, [[0, 1, 2, 3], [4, 5, 0, 1]]),
    (5, 2, [[0, 1, 0, 1, 0]]), (4, 100, [[*range(start, start + 4)] for start in range(0, 24, 4)]), (4, 0, []),
])  # fmt: skip
def test_calibration_feeds_are_as_large_as_a_fixed_batch(
    batch: int | None, samples: int, wanted: list[list[int]]
) -> None:
    feed = {"x": np.arange(24), "y": np.arange(24) * 2}
    feeds = calibration_batches(feed, samples, batch=batch)
    assert [part["x"].tolist() for part in feeds] == [list(part) for part in wanted]
    assert all(np.array_equal(part["y"], 2 * part["x"]) for part in feeds)
    assert calibration_items(feed, samples) == len({item for part in feeds for item in part["x"].tolist()})


def test_symmetric_qdq_is_what_tensorrt_reads(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    symmetric_qdq(model.path, tmp_path / "s.onnx", calibration_batches(items(model), 16))
    pairs = quantizers(tmp_path / "s.onnx") + quantizers(tmp_path / "s.onnx", "DequantizeLinear")
    assert {zero.dtype for _, zero in pairs} == {np.dtype(np.int8)}  # no int32 bias among them
    assert all(not zero.any() for _, zero in pairs)


@pytest.mark.parametrize("method", ["minmax", "moving-average", "percentile", "entropy"])
def test_every_calibration_gives_a_working_file(method: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    qdq(model.path, tmp_path / "q.onnx", calibration_batches(items(model), 32), calibration=method)
    check_file(tmp_path / "q.onnx")


def test_a_calibration_that_is_not_there_is_unsupported(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    with pytest.raises(Unsupported, match="median"):
        qdq(model.path, tmp_path / "q.onnx", calibration_batches(items(model), 16), calibration="median")


def test_dynamic_int8_of_a_weight_that_two_gemms_share(tmp_path: Path) -> None:
    model = two_inputs(tmp_path)
    dynamic_int8(model.path, tmp_path / "d.onnx")
    feed = items(model, 4)
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    got = ReferenceEvaluator(str(tmp_path / "d.onnx")).run(None, feed)[0]
    assert np.abs(got - wanted).max() < 0.03 * np.abs(wanted).max()


def test_float16_halves_the_file_and_keeps_float32_io(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    to_float16(model.path, tmp_path / "h.onnx")
    assert {span.dtype for span in weight_spans(tmp_path / "h.onnx")} == {"float16"}
    inputs, outputs = model_io(tmp_path / "h.onnx")
    assert inputs["image"].dtype == outputs["logits"].dtype == "float32"
    to_float16(model.path, tmp_path / "all.onnx", keep_io=False)
    assert model_io(tmp_path / "all.onnx")[0]["image"].dtype == "float16"


def test_overrides_name_nodes_and_unmatched_ones_are_refused(tmp_path: Path) -> None:
    path = conv_net(tmp_path).path
    assert float_nodes(path, {"first": "float32"}, {"first": "conv0.weight"}) == {"conv0": "first"}
    with pytest.raises(Unsupported, match="matches no weight"):
        float_nodes(path, {"conv9.weight": "float32"}, {})
    with pytest.raises(Unsupported, match=r"asks for int4.*float32 only"):
        float_nodes(path, {"conv0.weight": "int4"}, {})
    both = override_nodes(path, {"first": "int8"}, {"first": "conv0.weight"}, dtypes=("float32", "int8"))
    assert both == {"float32": {}, "int8": {"conv0": "first"}}
    with pytest.raises(Unsupported, match=r"asks for int4.*float32 or int8 only"):
        override_nodes(path, {"conv0.weight": "int4"}, {}, dtypes=("float32", "int8"))


@pytest.mark.parametrize("kept", ["w0", "b0", "w1", "w2"])
@pytest.mark.parametrize("way", [qdq, symmetric_qdq, dynamic_int8])
def test_an_override_holds_through_fusions(way: Callable[..., None], kept: str, tmp_path: Path) -> None:
    """Fused nodes change their names, and quantizers ignore names that they do not know."""
    model = dense_net(tmp_path)
    feeds = () if way is dynamic_int8 else (calibration_batches(items(model), 16),)
    way(model.path, tmp_path / "q.onnx", *feeds, exclude=float_nodes(model.path, {kept: "float32"}, {}))
    floats = {span.shape for span in weight_spans(tmp_path / "q.onnx") if span.dtype == "float32"}
    shape = {"w0": (32, 48), "b0": (32, 48), "w1": (48, 40), "w2": (24, 40)}[kept]
    assert floats in ({shape}, {shape[::-1]})  # ONNX Runtime turns weights of Gemm and of Transpose


def test_overrides_that_quantizers_cannot_follow_are_refused(tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    with pytest.raises(Unsupported, match=r"'first'.*'gone'"):
        dynamic_int8(model.path, tmp_path / "q.onnx", exclude={"gone": "first"})
    graph = onnx.load(model.path)
    graph.graph.node[0].name = ""
    onnx.save(graph, model.path)
    with pytest.raises(Unsupported, match=r"'w0'.*without a name"):
        float_nodes(model.path, {"w0": "float32"}, {})


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x0f\xff\xff")
    with pytest.raises(BadModel):
        model_io(tmp_path / "bad.onnx")


def test_quiet_keeps_prints_off_and_puts_logging_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.manager.disable
    with quiet() as said:
        print("chatter")
        logging.getLogger("nncf").warning("chatter")
    assert said.getvalue() == "chatter\n"
    assert capsys.readouterr().out == ""
    assert logging.root.manager.disable == before


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_widened_and_the_interface_stays(dtype: type, tmp_path: Path) -> None:
    """An If whose branches read a stored weight, a constant, a cast and an output that something reads."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rng = np.random.default_rng(0)
    w, v, one = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 3), (3, 3), (1,)))
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["a", factor], [f"{factor}.y"], name=f"{factor}.mul")], factor, [],
            [helper.make_tensor_value_info(f"{factor}.y", kind, ["n", 3])],
            [numpy_helper.from_array(np.array([size], dtype), factor)],
        ) for factor, size in (("twice", 2), ("thrice", 3))
    ]  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("If", ["which"], ["b"], name="if", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Constant", [], ["one"], name="k", value=numpy_helper.from_array(one)),
        helper.make_node("Cast", ["whole"], ["part"], name="to", to=kind),
        helper.make_node("MatMul", ["b", "v"], ["c"], name="second"),
        helper.make_node("Add", ["c", "one"], ["d"], name="add"),
        helper.make_node("Add", ["d", "part"], ["y"], name="last"),
    ]
    given = (("x", kind, ["n", 4]), ("which", onnx.TensorProto.BOOL, []), ("whole", onnx.TensorProto.INT64, [1]))
    infos = [helper.make_tensor_value_info(*item) for item in given]
    results = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in ("a", "y")]
    stored = [numpy_helper.from_array(value, name) for name, value in (("w", w), ("v", v))]
    graph = helper.make_graph(nodes, "g", infos, results, stored)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    model = Model("onnx", path, model_io(path)[0], ("a", "y"))
    wide = widened(model, tmp_path / "wide.onnx")
    onnx.checker.check_model(str(wide.path), full_check=True)
    assert model_io(wide.path) == model_io(path)
    assert {span.dtype for span in weight_spans(wide.path)} == {"float32"}
    x = rng.standard_normal((5, 4)).astype(dtype)
    a, y = ReferenceEvaluator(str(wide.path)).run(None, {"x": x, "which": np.array(True), "whole": np.array([2])})
    assert a.dtype == y.dtype == dtype
    np.testing.assert_allclose(y, (2 * (x @ w)) @ v + one + 2, rtol=0.02, atol=0.05 if dtype == np.float16 else 1e-4)
    assert widened(wide, tmp_path / "again.onnx") is wide


PRODUCTS = [
    ("bi,io->bo", (5, 4), (4, 3)), ("bi,oi->bo", (5, 4), (3, 4)), ("bi,oi->ob", (5, 4), (3, 4)),
    ("btc,cd->btd", (2, 5, 4), (4, 3)), ("bct,cd->bdt", (2, 4, 5), (4, 3)),
    ("bhid,bhjd->bhij", (2, 3, 5, 4), (2, 3, 6, 4)), ("bihd,bjhd->bhij", (2, 5, 3, 4), (2, 6, 3, 4)),
    ("bhij,bjhd->bihd", (2, 3, 5, 6), (2, 6, 3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("equation", "left", "right"), PRODUCTS)
def test_einsums_that_are_products_become_products(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], constant: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in (left, right))
    wanted = np.einsum(equation, a, b)
    inputs = {"a": list(left)} | ({} if constant else {"b": list(right)})
    node = helper.make_node("Einsum", ["a", "b"], ["y"], name="e", equation=equation)
    write(tmp_path / "m.onnx", [node], inputs, {"y": list(wanted.shape)}, {"b": b} if constant else {})
    model = onnx.load(str(tmp_path / "m.onnx"))
    einsums_as_products(model)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= {"MatMul", "Transpose"}
    found = ReferenceEvaluator(model).run(None, {"a": a} if constant else {"a": a, "b": b})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [("ij,ij->ij", (2, 3), (2, 3)), ("ii,ij->ij", (2, 2), (2, 3)), ("ab,bc->a", (2, 3), (3, 4)),
     ("bc,c->b", (2, 3), (3,)), ("...i,ij->...j", (2, 3), (3, 4)), ("ab,ab->", (2, 3), (2, 3))],
)  # fmt: skip
def test_other_einsums_stay(equation: str, left: tuple[int, ...], right: tuple[int, ...], tmp_path: Path) -> None:
    shape = np.einsum(equation, np.zeros(left), np.zeros(right)).shape
    node = helper.make_node("Einsum", ["a", "b"], ["y"], name="e", equation=equation)
    write(tmp_path / "m.onnx", [node], {"a": list(left), "b": list(right)}, {"y": list(shape)}, {})
    model = onnx.load(str(tmp_path / "m.onnx"))
    einsums_as_products(model)
    assert [node.op_type for node in model.graph.node] == ["Einsum"]
