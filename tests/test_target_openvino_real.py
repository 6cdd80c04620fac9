"""OpenVINO on graphs as people have them: right values, or one sentence in the words of the file."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, numpy_helper, save
from onnx.reference import ReferenceEvaluator
from onnx_files import DYNAMIC, HALF, STATIC, Items, items, make_job, outputs, placed, sqnr_db, write

from harness.api import Artifact, Model, Options, Precision, TensorSpec, Unsupported
from harness_openvino import harness_targets
from harness_openvino.params import Params

if any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")):
    pytest.skip("openvino or nncf is not installed", allow_module_level=True)
(SPEC,) = harness_targets()
NODE = helper.make_node
WEIGHT_ONLY = Precision("int8", scheme="weight-only")


def lowered(model: Model, folder: Path, precision: Precision, params: Params | None = None) -> Artifact:
    model = dataclasses.replace(model, precision=precision)
    return SPEC.lower(model, params or Params(), Options(), make_job(folder / "lowered", model))


def wanted(model: Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    return ReferenceEvaluator(str(model.path)).run(None, feed)[0]


def made(folder: Path, nodes: list, shapes: dict, out: dict, weights: dict[str, np.ndarray]) -> Model:
    """Write a graph of float32 and return its model."""
    path = folder / "net.onnx"
    write(path, nodes, shapes, out, weights)
    inputs = {
        name: TensorSpec("float32", tuple(size if isinstance(size, int) else None for size in shape))
        for name, shape in shapes.items()
    }
    return Model("onnx", path, inputs, tuple(out))


def normal(seed: int, *shape: int, scale: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def recurrent_net(folder: Path) -> Model:
    """Conv1d, ReLU, LSTM with an initial state of zeros that is made for the batch, and a product over its steps."""
    nodes = [
        NODE("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1]),
        NODE("Relu", ["c"], ["r"], name="relu"),
        NODE("Transpose", ["r"], ["steps"], name="turn", perm=[2, 0, 1]),
        NODE("Shape", ["x"], ["size"], name="size", start=0, end=1),
        NODE("Concat", ["one", "size", "hidden"], ["state.shape"], name="join", axis=0),
        NODE("Expand", ["zero", "state.shape"], ["state"], name="zeros"),
        NODE("LSTM", ["steps", "lw", "lr", "lb", "", "state", "state"], ["y"], name="lstm", hidden_size=16),
        NODE("Squeeze", ["y", "axis"], ["flat"], name="squeeze"),
        NODE("MatMul", ["flat", "head"], ["logits"], name="head"),
    ]
    weights = {
        "w": normal(1, 16, 4, 3), "b": normal(2, 16), "lw": normal(3, 1, 64, 16), "lr": normal(4, 1, 64, 16),
        "lb": normal(5, 1, 128), "head": normal(6, 16, 5), "zero": np.zeros((1, 1, 1), np.float32),
        "one": np.array([1]), "hidden": np.array([16]), "axis": np.array([1]),
    }  # fmt: skip
    return made(folder, nodes, {"x": ["n", 4, 12]}, {"logits": [12, "n", 5]}, weights)


def test_int8_keeps_recurrent_layers_right(tmp_path: Path) -> None:
    """NNCF would quantize the initial zeros to a scale of almost nothing, which the plugin uses for the inputs too."""
    model = recurrent_net(tmp_path)
    artifact = lowered(model, tmp_path, STATIC)
    feed = items(model, 6, seed=3)
    assert sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["logits"]) > 30
    assert "recurrent layers stay float32" in artifact.how


@pytest.mark.parametrize("precision", [Precision(), STATIC], ids=["float32", "int8"])
def test_recurrent_macs_count_as_what_ran(precision: Precision, tmp_path: Path) -> None:
    model = recurrent_net(tmp_path)
    rows = [item for item in placed(SPEC, lowered(model, tmp_path, precision), model) if item.macs]
    recurrent = [item for item in rows if item.op.startswith(("RNN", "LSTM"))]
    assert sum(item.macs or 0 for item in recurrent) == 12 * 64 * (16 + 16)
    assert {item.precision for item in recurrent} == {"float32"}
    assert sum(item.macs or 0 for item in rows) == 12 * (64 * 32 + 16 * 4 * 3 + 16 * 5)


def test_dynamic_int8_has_no_offset_of_half_a_step(tmp_path: Path) -> None:
    """The mean over a plane cancels the rounding errors, but not an error that all inputs share."""
    nodes = [
        NODE("Conv", ["x", "w"], ["c"], name="conv"),
        NODE("GlobalAveragePool", ["c"], ["g"], name="pool"),
        NODE("Flatten", ["g"], ["y"], name="flat"),
    ]
    model = made(tmp_path, nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 8]}, {"w": normal(1, 8, 3, 3, 3) + 0.2})
    feed = items(model, 4, seed=8)
    assert sqnr_db(wanted(model, feed), outputs(SPEC, lowered(model, tmp_path, DYNAMIC), feed)["y"]) > 35


@pytest.mark.parametrize("batch", [1, 4])
def test_int8_products_without_a_bias_are_right_at_small_batches(batch: int, tmp_path: Path) -> None:
    """Fused into one kernel by the plugin they would give 1e9."""
    nodes = [
        NODE("MatMul", ["x", "w0"], ["a"], name="mm0"),
        NODE("Relu", ["a"], ["b"], name="relu"),
        NODE("MatMul", ["b", "w1"], ["y"], name="mm1"),
    ]
    model = made(tmp_path, nodes, {"x": ["n", 16]}, {"y": ["n", 8]}, {"w0": normal(1, 16, 32), "w1": normal(2, 32, 8)})
    artifact = lowered(model, tmp_path, STATIC)
    feed = items(model, batch, seed=8)
    session = SPEC.open(artifact, Params(), Options(threads=1, batch=batch), "latency")
    assert sqnr_db(wanted(model, feed), session.run(feed)["y"]) > 30


def grid_net(folder: Path) -> Model:
    """One product whose weights lie on the grid of NNCF's int8, so that storing them loses nothing."""
    integers = np.random.default_rng(0).integers(-127, 128, (64, 32))
    integers[0] = -128
    weights = {"w": (integers / 256).astype(np.float32)}
    return made(folder, [NODE("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ["n", 64]}, {"y": ["n", 32]}, weights)


def test_weight_only_computes_with_float_activations_unless_asked(tmp_path: Path) -> None:
    model = grid_net(tmp_path)
    artifact = lowered(model, tmp_path, WEIGHT_ONLY)
    assert artifact.weight_bytes["int8"] == 64 * 32
    feed = items(model, 1, seed=8)
    found = {}
    for size in (0, 32):
        session = SPEC.open(artifact, Params(dynamic_quantization=size), Options(threads=1), "latency")
        found[size] = sqnr_db(wanted(model, feed), session.run(feed)["y"])
        assert session.effective()["dynamic_quantization"] == str(size)
    assert found[0] > 100
    assert found[32] < 60


def test_int4_has_scales_by_group_where_asked(tmp_path: Path) -> None:
    """Of 64 weights of a channel, half are 100 times larger: one scale for all leaves nothing of the small ones."""
    values = normal(1, 64, 32)
    values[:32] *= 100
    nodes = [NODE("MatMul", ["x", "w"], ["y"], name="mm")]
    model = made(tmp_path, nodes, {"x": ["n", 64]}, {"y": ["n", 32]}, {"w": values})
    feed = items(model, 8, seed=8)
    feed["x"][:, :32] /= 100
    int4 = Precision("int4", scheme="weight-only")
    found = {}
    for size in (0, 32):
        artifact = lowered(model, tmp_path / str(size), int4, Params(group_size=size))
        found[size] = sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"])
        assert artifact.weight_bytes["int4"] == 64 * 32 / 2
    assert found[32] > found[0] + 5
    assert "groups of 32" in artifact.how


def test_transposed_convolutions_run_in_int8(tmp_path: Path) -> None:
    """The plugin has an int8 kernel for inputs with zero in the middle alone."""
    nodes = [NODE("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])]
    shapes = {"x": ["n", 16, 4, 4]}, {"y": ["n", 8, 8, 8]}
    model = made(tmp_path, nodes, *shapes, {"w": normal(1, 16, 8, 2, 2)})
    calibration = items(model, 32)
    calibration["x"][0, 0, 0, 0] = 9  # the range is not symmetric of itself
    given = dataclasses.replace(model, precision=STATIC)
    job = dataclasses.replace(make_job(tmp_path / "lowered", given), data=Items(calibration))
    artifact = SPEC.lower(given, Params(), Options(), job)
    (row,) = [item for item in placed(SPEC, artifact, model) if item.macs]
    assert row.precision == "int8"
    feed = items(model, 4, seed=8)
    assert sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"]) > 25


def test_doubles_are_computed_in_float32(tmp_path: Path) -> None:
    values = {"w0": normal(1, 16, 32).astype(np.float64), "w1": normal(2, 32, 8).astype(np.float64)}
    nodes = [
        NODE("MatMul", ["x", "w0"], ["a"], name="mm0"),
        NODE("Relu", ["a"], ["b"], name="relu"),
        NODE("MatMul", ["b", "w1"], ["y"], name="mm1"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.DOUBLE, ["n", 16])], [info("y", TensorProto.DOUBLE, ["n", 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    path = tmp_path / "double.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    model = Model("onnx", path, {"x": TensorSpec("float64", (None, 16))}, ("y",))
    feed = {"x": np.random.default_rng(3).standard_normal((1, 16)) / 2}
    for precision, least in ((Precision(), 100), (STATIC, 28), (DYNAMIC, 28), (HALF, 50)):
        given = dataclasses.replace(model, precision=precision)
        doubles = Items({"x": np.random.default_rng(4).standard_normal((64, 16))})
        job = dataclasses.replace(make_job(tmp_path / precision.name, given), data=doubles)
        session = SPEC.open(SPEC.lower(given, Params(), Options(), job), Params(), Options(), "latency")
        assert sqnr_db(wanted(model, feed), session.run(feed)["y"]) > least, precision.name


def custom(folder: Path, node: object, weights: dict[str, np.ndarray], shape: list[int | str]) -> Model:
    """Write one node of another domain, or of a kind that only OpenVINO refuses, without a check."""
    info = helper.make_tensor_value_info
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(
        [node], "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, None)], stored
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.acme", 1)]
    path = folder / "odd.onnx"
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return Model("onnx", path, {"x": TensorSpec("float32", (None,))}, ("y",))


LSTM = {"w": normal(1, 1, 32, 4), "r": normal(2, 1, 32, 8), "b": normal(3, 1, 64), "p": normal(4, 1, 24)}


@pytest.mark.parametrize(
    ("node", "weights", "says"),
    [
        (NODE("Fancy", ["x"], ["y"], name="mine", domain="com.acme"), {},
         r"no kernel for com\.acme\.Fancy .node 'mine'"),
        (NODE("LSTM", ["x", "w", "r", "b", "", "", "", "p"], ["y"], name="rnn", hidden_size=8), LSTM,
         "no kernel for LSTM with peepholes .node 'rnn'"),
        (NODE("RNN", ["x", "w", "r"], ["y"], name="rnn", hidden_size=8, layout=1),
         {"w": normal(1, 1, 8, 4), "r": normal(2, 1, 8, 8)}, "no kernel for RNN with layout 1 .node 'rnn'"),
        (NODE("Conv", ["x", "flat"], ["y"], name="bad"), {"flat": normal(1, 4, 8)},
         "cannot take Conv .node 'bad'.: .*filters"),
    ],
    ids=["custom", "peepholes", "layout", "rank"],
)  # fmt: skip
def test_what_openvino_cannot_read_is_said_in_the_files_words(
    node: object, weights: dict[str, np.ndarray], says: str, tmp_path: Path
) -> None:
    model = custom(tmp_path, node, weights, ["n", 3, 8, 8] if "flat" in weights else [5, "n", 4])
    with pytest.raises(Unsupported, match=says) as refused:
        lowered(model, tmp_path, Precision())
    assert "src/" not in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, WEIGHT_ONLY, HALF], ids=lambda item: item.name)
def test_nan_and_quantized_weights_are_refused_by_name(precision: Precision, tmp_path: Path) -> None:
    model = grid_net(tmp_path)
    file = load(str(model.path))
    values = numpy_helper.to_array(file.graph.initializer[0]).copy()
    values[3, 3] = np.nan
    file.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    save(file, str(model.path))
    with pytest.raises(Unsupported, match="weight 'w' holds NaN"):
        lowered(model, tmp_path, precision)
    nodes = [
        NODE("DequantizeLinear", ["q", "s"], ["w"], name="dq"),
        NODE("MatMul", ["x", "w"], ["y"], name="mm"),
    ]
    stored = {"q": np.ones((64, 32), np.int8), "s": np.array(0.1, np.float32)}
    quantized = made(tmp_path, nodes, {"x": ["n", 64]}, {"y": ["n", 32]}, stored)
    with pytest.raises(Unsupported, match="quantized already"):
        lowered(quantized, tmp_path, precision)


def test_float16_of_a_file_that_has_it_is_refused(tmp_path: Path) -> None:
    nodes = [
        NODE("Cast", ["half"], ["w"], name="cast", to=TensorProto.FLOAT),
        NODE("MatMul", ["x", "w"], ["y"], name="mm"),
    ]
    stored = {"half": normal(1, 64, 32).astype(np.float16)}
    model = made(tmp_path, nodes, {"x": ["n", 64]}, {"y": ["n", 32]}, stored)
    with pytest.raises(Unsupported, match="float16 already; baseline runs"):
        lowered(model, tmp_path, HALF)
    artifact = lowered(model, tmp_path, WEIGHT_ONLY)
    assert artifact.weight_bytes["int8"] == 64 * 32


def test_what_float16_cannot_hold_is_counted_and_named(tmp_path: Path) -> None:
    values = normal(1, 64, 32)
    values[:3, 0] = 1e6
    nodes = [NODE("MatMul", ["x", "big"], ["y"], name="mm")]
    model = made(tmp_path, nodes, {"x": ["n", 64]}, {"y": ["n", 32]}, {"big": values})
    assert "3 values of 'big' lie beyond float16" in lowered(model, tmp_path, HALF).how


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, WEIGHT_ONLY], ids=lambda item: item.name)
def test_a_model_without_layers_is_not_quantized(precision: Precision, tmp_path: Path) -> None:
    model = made(tmp_path, [NODE("Mul", ["x", "k"], ["y"], name="mul")], {"x": ["n", 4]}, {"y": ["n", 4]},
                 {"k": np.array(2, np.float32)})  # fmt: skip
    with pytest.raises(Unsupported, match=r"no convolution|no constant weights"):
        lowered(model, tmp_path, precision)


def unlike_channels(folder: Path) -> Model:
    """Two convolutions: one channel between them is 3000 times as large as the others, and counts as little."""
    first, second = normal(1, 8, 3, 3, 3), normal(2, 4, 8, 3, 3)
    first[0] *= 3000
    second[:, 0] = 0
    nodes = [
        NODE("Conv", ["x", "w0"], ["inner"], name="c0", pads=[1] * 4),
        NODE("Conv", ["inner", "w1"], ["y"], name="c1", pads=[1] * 4),
    ]
    return made(folder, nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 4, 8, 8]}, {"w0": first, "w1": second})


def test_what_static_int8_loses_is_flagged_with_the_layer(tmp_path: Path) -> None:
    model = unlike_channels(tmp_path)
    artifact = lowered(model, tmp_path, STATIC)
    feed = items(model, 4)
    found = sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"])
    assert found < 20
    assert any(flag.startswith("under_20_db_from:") for flag in artifact.flags)
    assert "output 'y' keeps" in artifact.how
    assert not lowered(recurrent_net(tmp_path), tmp_path / "other", STATIC).flags


def test_an_output_keeps_its_name_where_its_quantizer_is_fused_with_what_feeds_it(tmp_path: Path) -> None:
    weights = {"w": normal(1, 16, 8), "s": np.array(0.02, np.float32), "z": np.array(0, np.int8)}
    nodes = [
        NODE("MatMul", ["x", "w"], ["m"], name="product"),
        NODE("QuantizeLinear", ["m", "s", "z"], ["q"], name="quantize"),
        NODE("DequantizeLinear", ["q", "s", "z"], ["o"], name="dequantize"),
    ]
    given = made(tmp_path, nodes, {"x": ["n", 16]}, {"o": ["n", 8]}, weights)
    model = dataclasses.replace(given, precision=Precision("int8", "int8", "static", realise="exact"))
    feed = items(model, 4)
    artifact = SPEC.lower(model, Params(), Options(), make_job(tmp_path / "lowered", model))
    found = outputs(SPEC, artifact, feed)
    assert list(found) == ["o"]
    steps = np.round(feed["x"] @ weights["w"] / weights["s"])  # what the two operators mean, in numpy
    assert sqnr_db(np.clip(steps, -128, 127) * weights["s"], found["o"]) > 30


def test_layers_are_found_where_converting_renames_them(tmp_path: Path) -> None:
    """A transposed convolution leaves its name to its bias, a last product takes the output's."""
    nodes = [
        NODE("ConvTranspose", ["x", "up.weight", "up.bias"], ["a"], name="node_up", strides=[2, 2]),
        NODE("Relu", ["a"], ["r"], name="relu"),
        NODE("GlobalAveragePool", ["r"], ["g"], name="pool"),
        NODE("Flatten", ["g"], ["f"], name="flat"),
        NODE("MatMul", ["f", "head"], ["y"], name="node_head"),
    ]
    weights = {"up.weight": normal(1, 16, 8, 2, 2), "up.bias": normal(2, 8), "head": normal(3, 8, 4)}
    model = made(tmp_path, nodes, {"x": ["n", 16, 4, 4]}, {"y": ["n", 4]}, weights)
    names = {"up.weight": "up.weight", "head": "head"}
    for kept, macs in (("up.weight", 16 * 4 * 4 * 8 * 4), ("head", 8 * 4)):
        given = dataclasses.replace(model, names=names)
        artifact = lowered(given, tmp_path / kept, dataclasses.replace(STATIC, overrides={kept: "float32"}))
        rows = [item for item in placed(SPEC, artifact, model) if item.macs]
        assert [item.macs for item in rows if item.precision == "float32"] == [macs]


def test_ranges_bind_what_they_can_and_the_others_are_named(tmp_path: Path) -> None:
    model = dataclasses.replace(recurrent_net(tmp_path), names={"w": "w", "lw": "lw", "head": "head"})
    encodings = tmp_path / "encodings.json"
    layers = {name: {"input": [-4.0, 4.0]} for name in ("w", "lw")}
    encodings.write_text(json.dumps({"schema": 1, "layers": layers}))
    precision = dataclasses.replace(STATIC, realise="exact", encodings=encodings)
    artifact = lowered(model, tmp_path, precision)
    assert "1 ranges given by the encodings; those of 'lw' bind nothing" in artifact.how
    assert "'lw'" in artifact.how
    alone = dataclasses.replace(precision, encodings=tmp_path / "lost.json")
    (tmp_path / "lost.json").write_text(json.dumps({"schema": 1, "layers": {"lw": layers["lw"]}}))
    with pytest.raises(Unsupported, match="leaves every layer in float whose range binds, the one of 'lw' first"):
        lowered(model, tmp_path / "other", alone)


def test_bias_correction_is_offered_and_off(tmp_path: Path) -> None:
    """NNCF's fast one takes the mean error of each layer from statistics, and was seen further off than none."""
    nodes = [
        NODE("Conv", ["x", "w1", "b1"], ["a"], name="c1"),
        NODE("Relu", ["a"], ["r"], name="relu"),
        NODE("GlobalAveragePool", ["r"], ["g"], name="pool"),
        NODE("Flatten", ["g"], ["f"], name="flat"),
        NODE("MatMul", ["f", "w2"], ["y"], name="mm"),
    ]
    weights = {"w1": normal(1, 8, 3, 3, 3), "b1": normal(2, 8), "w2": normal(3, 8, 10)}
    model = made(tmp_path, nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 10]}, weights)
    feed = items(model, 16, seed=5)
    found = {}
    for way in ("off", "fast", "full"):
        artifact = lowered(model, tmp_path / way, STATIC, Params(bias_correction=way))
        found[way] = sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"])
        assert (f"{way} bias correction" in artifact.how) == (way != "off")
    assert min(found["off"], found["full"]) > 38


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, WEIGHT_ONLY])
def test_a_product_of_a_vector_gives_a_vector(precision: Precision, tmp_path: Path) -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["h"], name="a"), NODE("Relu", ["h"], ["r"], name="relu"),
             NODE("MatMul", ["r", "v"], ["y"], name="b")]  # fmt: skip
    weights = {"w": normal(0, 16, 24), "v": normal(1, 24, 4)}
    path = tmp_path / "net.onnx"
    write(path, nodes, {"x": [16]}, {"y": [4]}, weights)
    model = Model("onnx", path, {"x": TensorSpec("float32", (16,), "item", None)}, ("y",), axes={"y": None})
    x = normal(2, 40, 16, scale=1.0)
    job = dataclasses.replace(make_job(tmp_path / "lowered", model), data=Items({"x": x}))
    artifact = SPEC.lower(dataclasses.replace(model, precision=precision), Params(), Options(), job)
    session = SPEC.open(artifact, Params(), Options(), "accuracy")
    found = [session.run({"x": item})["y"].copy() for item in x]
    assert [array.shape for array in found] == [(4,)] * 40
    assert sqnr_db(np.maximum(x @ weights["w"], 0) @ weights["v"], np.array(found)) > 25


def test_a_file_that_quantizes_as_it_runs_is_run_as_it_is(tmp_path: Path) -> None:
    from harness_onnx import dynamic_int8

    nodes = [NODE("MatMul", ["x", "w"], ["y"], name="a")]
    model = made(tmp_path, nodes, {"x": ["n", 16]}, {"y": ["n", 8]}, {"w": normal(0, 16, 8)})
    dynamic_int8(model.path, tmp_path / "d.onnx")
    given = Precision("int8", "int8", "dynamic", realise="exact")
    dynamic = dataclasses.replace(model, path=tmp_path / "d.onnx")
    feed = items(model, 8)
    artifact = lowered(dynamic, tmp_path, given)
    found = outputs(SPEC, artifact, {"x": feed["x"]})["y"]
    assert sqnr_db(ReferenceEvaluator(str(model.path)).run(None, feed)[0], found) > 30
    with pytest.raises(Unsupported, match="quantized already"):
        lowered(dynamic, tmp_path / "again", STATIC)


@pytest.mark.parametrize("precision", [WEIGHT_ONLY, Precision("int4", scheme="weight-only")])
def test_a_weight_with_one_output_channel_is_compressed(precision: Precision, tmp_path: Path) -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["y"], name="a")]
    model = made(tmp_path, nodes, {"x": ["n", 32]}, {"y": ["n", 1]}, {"w": normal(0, 32, 1)})
    feed = items(model, 8)
    artifact = lowered(model, tmp_path, precision)
    assert artifact.weight_bytes[precision.weights] == (32 if precision.weights == "int8" else 16)
    assert sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"]) > (30 if precision.weights == "int8" else 8)


def test_layers_in_branches_alone_are_refused_before_nncf_looks_for_them(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [NODE("MatMul", ["x", name], [f"{name}.y"], name=name)], name, [],
            [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(normal(seed, 8, 4), name)],
        ) for seed, name in enumerate(("one", "two"))
    ]  # fmt: skip
    nodes = [
        NODE("ReduceMax", ["x"], ["top"], name="top", keepdims=0),
        NODE("Greater", ["top", "limit"], ["high"], name="high"),
        NODE("If", ["high"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]),
    ]  # fmt: skip
    model = made(tmp_path, nodes, {"x": ["n", 8]}, {"y": ["n", 4]}, {"limit": np.float32(2)})
    with pytest.raises(Unsupported, match="its layers lie in branches or loops"):
        lowered(model, tmp_path, STATIC)


def test_a_layer_on_the_last_step_counts_as_quantized(tmp_path: Path) -> None:
    """NNCF quantizes the whole sequence, before the step is taken out of it."""
    nodes = [
        NODE("Gather", ["x", "last"], ["step"], name="take", axis=1),
        NODE("MatMul", ["step", "w"], ["y"], name="a"),
    ]
    weights = {"last": np.array(4, np.int64), "w": normal(0, 8, 4)}
    model = made(tmp_path, nodes, {"x": ["n", 5, 8]}, {"y": ["n", 4]}, weights)
    artifact = lowered(model, tmp_path, STATIC)
    feed = items(model, 8)
    assert artifact.weight_bytes["int8"] == 32
    assert sqnr_db(wanted(model, feed), outputs(SPEC, artifact, feed)["y"]) > 25
