"""Graphs as users bring them, quantized for ONNX Runtime: outputs beside those of the reference of the float file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_files import DYNAMIC, HALF, STATIC, make_job, outputs, sqnr_db, write
from torch.nn import functional as F

from harness.api import Artifact, Calibration, Model, Options, Precision, Unsupported
from harness_onnx import model_io, symmetric_qdq
from harness_onnxruntime import harness_targets
from harness_onnxruntime.params import Params

pytest.importorskip("onnxruntime")
(SPEC,) = harness_targets()
WEIGHTS = {bits: Precision(weights=f"int{bits}", scheme="weight-only") for bits in (8, 4)}
node = helper.make_node


def rand(*shape: int, seed: int = 0, scale: float = 0.3) -> Any:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def graph(path: Path, nodes: list[Any], shape: list[Any], outs: dict[str, list[Any]], weights: dict[str, Any]) -> Model:
    for number, item in enumerate(nodes):
        item.name = item.name or f"node{number}"
    write(path, nodes, {"x": shape}, outs, weights)
    inputs, found = model_io(path)
    return Model("onnx", path, inputs, tuple(found))


def lowered(model: Model, folder: Path, precision: Precision, params: Params | None = None) -> Artifact:
    model = dataclasses.replace(model, precision=precision)
    return SPEC.lower(model, params or Params(), Options(), make_job(folder, model))


def compared(model: Model, tmp_path: Path, precision: Precision, params: Params | None = None) -> dict[str, Any]:
    """Return output name -> what the reference gives for the float file, and the runtime for the artifact."""
    shape = [size or 16 for size in model.inputs["x"].shape]
    feed = {"x": rand(*shape, seed=7, scale=1)}
    artifact = lowered(model, tmp_path / "lowered", precision, params)
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)
    got = outputs(SPEC, artifact, feed, params)
    return {name: (value, got[name]) for name, value in zip(model.outputs, wanted, strict=True)}


def worst(pairs: dict[str, Any]) -> float:
    return min(sqnr_db(*pair) for pair in pairs.values())


def stacked(path: Path) -> Model:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])]
    return graph(path, nodes, ["n", 4, 3, 16], {"y": ["n", 4, 3, 8]}, {"w": rand(4, 16, 8)})


def scaled_gemms(path: Path) -> Model:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"], transB=1, alpha=0.25),
        node("Relu", ["h"], ["r"]), node("Gemm", ["r", "v", "c"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]  # fmt: skip
    weights = {"w": rand(24, 16, scale=1), "b": rand(24), "v": rand(5, 24, seed=1), "c": rand(5, seed=2)}
    return graph(path, nodes, ["n", 16], {"y": ["n", 5]}, weights)


def tied(path: Path) -> Model:
    """One square matrix read as it is, transposed by a Gemm, and as a table."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("Gemm", ["b", "w", "c"], ["d"], transB=1),
        node("Gather", ["w", "rows"], ["t"]), node("MatMul", ["d", "t"], ["y"]),
    ]  # fmt: skip
    weights = {"w": rand(16, 16), "c": rand(16), "rows": np.arange(15, -1, -1)}
    return graph(path, nodes, ["n", 16], {"y": ["n", 16]}, weights)


def shared_bias(path: Path) -> Model:
    """The second convolution's copy of the bias would be called as an activation is."""
    nodes = [
        node("Conv", ["x", "w1", "b"], ["b0"], pads=[1] * 4), node("Relu", ["b0"], ["t"]),
        node("Conv", ["t", "w2", "b"], ["u"], pads=[1] * 4), node("Conv", ["u", "w3", "b"], ["y"], pads=[1] * 4),
    ]  # fmt: skip
    weights = {**{f"w{i}": rand(10, 10, 3, 3, seed=i) for i in (1, 2, 3)}, "b": rand(10)}
    return graph(path, nodes, ["n", 10, 6, 6], {"y": ["n", 10, 6, 6]}, weights)


def attention(path: Path, mask: list[Any], values: dict[str, Any]) -> Model:
    nodes = [
        node("MatMul", ["x", "wq"], ["q"]), node("MatMul", ["x", "wk"], ["k"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), node("MatMul", ["q", "kt"], ["s"]), *mask,
        node("Softmax", ["sm"], ["p"], axis=-1), node("MatMul", ["x", "wv"], ["v"]), node("MatMul", ["p", "v"], ["y"]),
    ]  # fmt: skip
    weights = {name: rand(16, 16, seed=i) for i, name in enumerate(("wq", "wk", "wv"))}
    return graph(path, nodes, ["n", 8, 16], {"y": ["n", 8, 16]}, weights | values)


def added_mask(path: Path, value: float) -> Model:
    mask = np.triu(np.full((8, 8), value, np.float32), 1)
    return attention(path, [node("Add", ["s", "mask"], ["sm"])], {"mask": mask})


def chosen_mask(path: Path) -> Model:
    held = {"later": np.triu(np.ones((8, 8), bool), 1), "never": np.float32(-np.inf)}
    return attention(path, [node("Where", ["later", "never", "s"], ["sm"])], held)


def computed_mask(path: Path) -> Model:
    """(1 - keep) * -1e4, as transformers of 2019 wrote it."""
    nodes = [
        node("Sub", ["one", "keep"], ["drop"]), node("Mul", ["drop", "much"], ["mask"]),
        node("Add", ["s", "mask"], ["sm"]),
    ]  # fmt: skip
    held = {"keep": np.tril(np.ones((8, 8), np.float32)), "one": np.float32(1), "much": np.float32(-1e4)}
    return attention(path, nodes, held)


ATTENTIONS: dict[str, Callable[[Path], Model]] = {
    "infinite": lambda path: added_mask(path, -np.inf),
    "least": lambda path: added_mask(path, float(np.finfo(np.float32).min)),
    "-1e4": lambda path: added_mask(path, -1e4),
    "where": chosen_mask,
    "computed": computed_mask,
}


def odd_biases(path: Path) -> Model:
    """A bias of one number for all columns, and one with a row for each of two items."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"]), node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "v", "c"], ["z"], transB=1),
        node("Relu", ["z"], ["s"]), node("MatMul", ["s", "u"], ["y"]),
    ]  # fmt: skip
    weights = {
        "w": rand(16, 24),
        "b": rand(1),
        "v": rand(8, 24, seed=1),
        "c": rand(2, 8, seed=2),
        "u": rand(8, 4, seed=3),
    }
    return graph(path, nodes, [2, 16], {"y": [2, 4]}, weights)


OTHERS = {"odd": odd_biases, "stacked": stacked, "scaled": scaled_gemms, "tied": tied, "bias": shared_bias}


@pytest.mark.parametrize("make", [*OTHERS.values(), *ATTENTIONS.values()], ids=[*OTHERS, *ATTENTIONS])
def test_static_and_dynamic_int8_hold_the_outputs(make: Any, tmp_path: Path) -> None:
    model = make(tmp_path / "m.onnx")
    assert worst(compared(model, tmp_path, STATIC)) > 24
    assert worst(compared(model, tmp_path, DYNAMIC)) > 29
    assert worst(compared(model, tmp_path, WEIGHTS[8])) > 35
    assert worst(compared(model, tmp_path, HALF)) > 55


def test_dynamic_int8_scales_unlike_channels_apart(tmp_path: Path) -> None:
    """A channel with weights of a thousandth of another's would be rounded to nothing by one scale for both."""
    sizes = np.array([1, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-3], np.float32).reshape(8, 1, 1, 1)
    nodes = [node("Conv", ["x", "w", "b"], ["a"]), node("Conv", ["x", "v"], ["c"]), node("Add", ["a", "c"], ["y"])]
    weights = {"w": rand(8, 3, 3, 3) * sizes, "b": rand(8) * sizes.ravel(), "v": rand(8, 3, 3, 3, seed=1) * sizes}
    model = graph(tmp_path / "m.onnx", nodes, ["n", 3, 8, 8], {"y": ["n", 8, 6, 6]}, weights)
    ((wanted, got),) = compared(model, tmp_path, DYNAMIC).values()
    assert min(sqnr_db(wanted[:, place], got[:, place]) for place in range(8)) > 25


def test_an_activation_that_a_branch_reads_stays(tmp_path: Path) -> None:
    """The quantizer drops a Relu and overlooks the readers in nested graphs, which then read what it had cut off."""

    def branch(name: str, op: str) -> Any:
        result = helper.make_tensor_value_info(f"y_{name}", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([node(op, ["r"], [f"y_{name}"], name=name)], name, [], [result])

    nodes = [
        node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Greater", ["top", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("yes", "Identity"), else_branch=branch("no", "Neg")),
    ]  # fmt: skip
    weights = {"w": rand(8, 3, 3, 3), "zero": np.float32(0)}
    model = graph(tmp_path / "m.onnx", nodes, ["n", 3, 8, 8], {"y": ["n", 8, 6, 6]}, weights)
    assert worst(compared(model, tmp_path, STATIC)) > 24


@pytest.mark.parametrize("method", ["percentile", "entropy", "moving-average", "mse"])
def test_every_calibration_passes_over_masks(method: Any, tmp_path: Path) -> None:
    model = added_mask(tmp_path / "m.onnx", -np.inf)
    precision = dataclasses.replace(STATIC, calibration=Calibration(method=method))
    assert worst(compared(model, tmp_path, precision)) > 20


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_scalar_between_layers_is_calibrated(method: Any, tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]), node("ReduceMax", ["a"], ["m"], keepdims=0), node("Div", ["a", "m"], ["d"]),
        node("MatMul", ["d", "v"], ["y"]),
    ]  # fmt: skip
    model = graph(tmp_path / "m.onnx", nodes, ["n", 16], {"y": ["n", 4]}, {"w": rand(16, 8), "v": rand(8, 4)})
    precision = dataclasses.replace(STATIC, calibration=Calibration(method=method))
    assert worst(compared(model, tmp_path, precision)) > 20


def detector(path: Path, tail: list[Any]) -> Model:
    """Pixel boxes of some thousands and scores below one in one output."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4), node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "wb", "bb"], ["bx"]), node("Mul", ["bx", "k"], ["bp"]),
        node("Conv", ["r", "ws", "bs"], ["sl"]), node("Sigmoid", ["sl"], ["sp"]),
        node("Concat", ["bp", "sp"], ["y4"], axis=1), *tail,
    ]  # fmt: skip
    weights = {
        "w1": rand(16, 3, 3, 3), "b1": rand(16), "wb": rand(4, 16, 1, 1, seed=1), "bb": rand(4),
        "ws": rand(5, 16, 1, 1, seed=2, scale=0.6), "bs": np.full(5, -4, np.float32), "k": np.float32(640),
        "shape": np.array([0, 9, -1]), "units": np.array([2, 2, 2, 2, 1, 1, 1, 1, 1], np.float32).reshape(9, 1),
    }  # fmt: skip
    return graph(path, nodes, ["n", 3, 16, 16], {"y": ["n", 9, 256]}, weights)


@pytest.mark.parametrize("scaled", [False, True])
def test_every_class_of_a_detector_survives_beside_its_boxes(scaled: bool, tmp_path: Path) -> None:
    tail = [node("Reshape", ["y4", "shape"], ["z" if scaled else "y"])]
    tail += [node("Mul", ["z", "units"], ["y"])] if scaled else []
    ((wanted, got),) = compared(detector(tmp_path / "m.onnx", tail), tmp_path, STATIC).values()
    assert min(sqnr_db(wanted[:, place], got[:, place]) for place in range(9)) > 20
    placed = {item.op_type for item in onnx.load(tmp_path / "lowered" / "model.onnx").graph.node}
    assert "QuantizeLinear" in placed


@pytest.mark.parametrize("make", ATTENTIONS.values(), ids=list(ATTENTIONS))
def test_the_dialect_of_tensorrt_leaves_masks_in_float(make: Any, tmp_path: Path) -> None:
    model = make(tmp_path / "m.onnx")
    symmetric_qdq(model.path, tmp_path / "q.onnx", [{"x": rand(16, 8, 16, seed=seed, scale=1)} for seed in range(3)])
    feed = {"x": rand(8, 8, 16, seed=7, scale=1)}
    (wanted,) = ReferenceEvaluator(str(model.path)).run(None, feed)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "q.onnx"))
    assert sqnr_db(wanted, session.run(None, feed)[0]) > 20


def test_an_output_that_a_relu_reads_keeps_its_negative_values(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Relu", ["y"], ["z"])]
    model = graph(tmp_path / "m.onnx", nodes, ["n", 16], {"y": ["n", 8], "z": ["n", 8]}, {"w": rand(16, 8)})
    assert worst(compared(model, tmp_path, STATIC)) > 24


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, HALF, WEIGHTS[8], WEIGHTS[4]])
def test_a_weight_that_is_no_number_is_refused_by_name(precision: Precision, tmp_path: Path) -> None:
    weight = rand(16, 8)
    weight[3, 3] = np.nan
    nodes = [node("MatMul", ["x", "head.weight"], ["y"], name="head")]
    model = graph(tmp_path / "m.onnx", nodes, ["n", 16], {"y": ["n", 8]}, {"head.weight": weight})
    with pytest.raises(Unsupported, match=r"weight 'head\.weight' of layer 'head' \(MatMul\) holds NaN"):
        lowered(model, tmp_path / "lowered", precision)


def test_a_batch_norm_beyond_float16_is_folded_first(tmp_path: Path) -> None:
    names = ("gamma", "beta", "mean", "variance")
    nodes = [
        node("Conv", ["x", "w"], ["a"]), node("BatchNormalization", ["a", *names], ["b"]),
        node("Relu", ["b"], ["r"]), node("BatchNormalization", ["r", *names], ["c"]), node("Relu", ["c"], ["s"]),
        node("Mul", ["s", "much"], ["m"]), node("BatchNormalization", ["m", *names], ["y"]),
    ]  # fmt: skip
    weights = {
        "w": rand(8, 3, 3, 3, scale=300), "gamma": rand(8, seed=1, scale=1), "beta": rand(8, seed=2),
        "mean": rand(8, seed=3), "variance": np.full(8, 1e6, np.float32), "much": np.float32(1000),
    }  # fmt: skip
    model = graph(tmp_path / "m.onnx", nodes, ["n", 3, 8, 8], {"y": ["n", 8, 6, 6]}, weights)
    assert worst(compared(model, tmp_path, HALF)) > 55


def test_what_float16_cannot_hold_stays_float32_and_is_named(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="wide"), node("Mul", ["a", "small"], ["b"], name="back"),
        node("MatMul", ["b", "v"], ["y"], name="head"),
    ]  # fmt: skip
    weights = {"w": rand(16, 16, scale=1e5), "small": np.float32(1e-5), "v": rand(16, 4)}
    model = graph(tmp_path / "m.onnx", nodes, ["n", 16], {"y": ["n", 4]}, weights)
    assert worst(compared(model, tmp_path, HALF)) > 50
    how = lowered(model, tmp_path / "again", HALF).how
    assert "2 operators stay float32, whose values exceed 65504: wide, back" in how


def test_integer_weights_compute_with_the_activations_that_the_row_tells(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    model = graph(tmp_path / "m.onnx", nodes, ["n", 64], {"y": ["n", 32]}, {"w": rand(64, 32)})
    feed = {"x": rand(16, 64, seed=7, scale=1)}
    for kind, floor, ceiling in (("float32", 100, 400), ("int8", 30, 60)):
        params = Params(weight_only_activations=kind)
        artifact = lowered(model, tmp_path / kind, WEIGHTS[4], params)
        assert f"activations: {'float32' if kind == 'float32' else 'rows of int8'}" in artifact.how
        exact = ReferenceEvaluator(str(artifact.path)).run(None, feed)[
            0
        ]  # integers as the file holds them, all in float
        assert floor < sqnr_db(exact, outputs(SPEC, artifact, feed, params)["y"]) < ceiling


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, HALF, WEIGHTS[8], WEIGHTS[4]])
def test_a_file_that_is_quantized_takes_no_other_precision(precision: Precision, tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["q", "s", "z"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    weights = {"q": np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "s": np.float32(0.1), "z": np.int8(0)}
    model = graph(tmp_path / "m.onnx", nodes, ["n", 4], {"y": ["n", 4]}, weights)
    with pytest.raises(Unsupported, match="quantized already; baseline runs it as it is"):
        lowered(model, tmp_path / "lowered", precision)
    feed = {"x": rand(2, 4, scale=1)}
    artifact = lowered(model, tmp_path / "own", Precision("int8", "int8", "static", realise="exact"))
    wanted = feed["x"] @ (weights["q"] * np.float32(0.1))
    np.testing.assert_allclose(outputs(SPEC, artifact, feed)["y"], wanted, rtol=1e-5, atol=1e-6)


def written_out_norm(path: Path) -> Model:
    """A layer norm in single operators, as exporters of TensorFlow and JAX write it, before a layer."""
    nodes = [
        node("ReduceMean", ["x", "last"], ["m"]), node("Sub", ["x", "m"], ["d"]), node("Mul", ["d", "d"], ["q"]),
        node("ReduceMean", ["q", "last"], ["v"]), node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["s"]),
        node("Reciprocal", ["s"], ["r"]), node("Mul", ["d", "r"], ["n"]), node("Mul", ["n", "gamma"], ["g"]),
        node("MatMul", ["g", "w"], ["y"]),
    ]  # fmt: skip
    scale = np.float32(10.0) ** np.linspace(-2, 1, 32, dtype=np.float32)
    weights = {"eps": np.float32(1e-6), "gamma": 1 / scale, "w": rand(32, 8), "last": np.array([-1])}
    nodes[0].input[0] = nodes[1].input[0] = "z"
    return graph(
        path, [node("Mul", ["x", "scale"], ["z"]), *nodes], ["n", 32], {"y": ["n", 8]}, weights | {"scale": scale}
    )


def logarithm(path: Path) -> Model:
    """The front of an audio network: powers over eight orders of magnitude, whose logarithm counts."""
    nodes = [
        node("Mul", ["x", "loud"], ["a"]), node("Mul", ["a", "a"], ["p"]), node("Add", ["p", "eps"], ["e"]),
        node("Log", ["e"], ["l"]), node("MatMul", ["l", "w"], ["y"]),
    ]  # fmt: skip
    weights = {
        "loud": np.float32(10.0) ** np.linspace(-3, 1, 32, dtype=np.float32),
        "eps": np.float32(1e-9),
        "w": rand(32, 8),
    }
    return graph(path, nodes, ["n", 32], {"y": ["n", 8]}, weights)


@pytest.mark.parametrize("make", [written_out_norm, logarithm])
def test_what_eight_bits_ruin_stays_float_and_the_layer_does_not(make: Any, tmp_path: Path) -> None:
    model = make(tmp_path / "m.onnx")
    assert worst(compared(model, tmp_path, STATIC)) > 20
    artifact = lowered(model, tmp_path / "again", STATIC)
    assert "element-wise operators stay float32" in artifact.how
    assert artifact.flags == ()
    placed = [item.op_type for item in onnx.load(artifact.path).graph.node]
    assert placed.count("QuantizeLinear") == 1  # in front of the matrix product


def test_an_output_that_cannot_be_saved_is_flagged_with_its_layer(tmp_path: Path) -> None:
    """Two channels of unlike size in one convolution's output, of which the next layer reads the small one alone."""
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[0], weight[1] = 1e4, rand(4, 1, 1)
    pick = np.array([0, 1], np.float32).reshape(1, 2, 1, 1)
    nodes = [node("Conv", ["x", "w"], ["a"], name="first"), node("Conv", ["a", "v"], ["y"], name="second")]
    model = graph(tmp_path / "m.onnx", nodes, ["n", 4, 8, 8], {"y": ["n", 1, 8, 8]}, {"w": weight, "v": pick})
    artifact = lowered(model, tmp_path / "lowered", STATIC)
    assert artifact.flags == ("under_20_db_from:y",)
    assert "output 'y' keeps" in artifact.how


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolutions_between_layers(groups: int, tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"]), node("Relu", ["a"], ["r"]),
        node("ConvTranspose", ["r", "t", "c"], ["u"], group=groups, strides=[2, 2]), node("Conv", ["u", "v"], ["y"]),
    ]  # fmt: skip
    weights = {
        "w": rand(8, 3, 3, 3),
        "b": rand(8),
        "t": rand(8, 16 // groups, 2, 2),
        "c": rand(16),
        "v": rand(4, 16, 1, 1),
    }
    model = graph(tmp_path / "m.onnx", nodes, ["n", 3, 8, 8], {"y": ["n", 4, 12, 12]}, weights)
    x, *held = (torch.from_numpy(item) for item in (rand(16, 3, 8, 8, seed=7, scale=1), *weights.values()))
    hidden = F.conv2d(x, held[0], held[1]).relu()
    wanted = F.conv2d(F.conv_transpose2d(hidden, held[2], held[3], stride=2, groups=groups), held[4]).numpy()
    for precision, floor in ((STATIC, 24), (WEIGHTS[8], 35), (HALF, 55)):
        artifact = lowered(model, tmp_path / f"{floor}", precision)
        assert sqnr_db(wanted, outputs(SPEC, artifact, {"x": x.numpy()})["y"]) > floor


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC])
def test_a_model_without_integer_kernels_is_refused_not_called_int8(precision: Precision, tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", ["x", "t"], ["y"], strides=[2, 2])]
    model = graph(tmp_path / "m.onnx", nodes, ["n", 8, 4, 4], {"y": ["n", 4, 8, 8]}, {"t": rand(8, 4, 2, 2)})
    with pytest.raises(Unsupported, match=r"no .*that ONNX Runtime quantizes"):
        lowered(model, tmp_path / "lowered", precision)


def test_a_large_bias_behind_a_tiny_input_does_not_overflow(tmp_path: Path) -> None:
    """The bias' scale would be 1e-12 or less, and 0.5 of it more than 2**31."""
    nodes = [
        node("Mul", ["x", "tiny"], ["a"]), node("Conv", ["a", "w", "b"], ["c"]), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"]),
    ]  # fmt: skip
    weights = {"tiny": np.float32(1e-8), "w": rand(8, 3, 3, 3), "b": np.full(8, 0.5, np.float32), "v": rand(4, 8, 1, 1)}
    model = graph(tmp_path / "m.onnx", nodes, ["n", 3, 8, 8], {"y": ["n", 4, 6, 6]}, weights)
    assert worst(compared(model, tmp_path, STATIC)) > 24


def test_channels_of_zeros_stay_zeros(tmp_path: Path) -> None:
    weight = rand(16, 8)
    weight[:, 2] = 0
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    model = graph(
        tmp_path / "m.onnx", nodes, ["n", 16], {"y": ["n", 4]}, {"w": weight, "v": np.zeros((8, 4), np.float32)}
    )
    for precision in (STATIC, DYNAMIC, *WEIGHTS.values()):
        ((wanted, got),) = compared(model, tmp_path, precision).values()
        np.testing.assert_array_equal(got, wanted)


def test_stored_weights_are_integers_of_the_right_rows(tmp_path: Path) -> None:
    """A stack of matrices takes one scale: the largest weight over 127."""
    model = stacked(tmp_path / "m.onnx")
    artifact = lowered(model, tmp_path / "lowered", STATIC)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(artifact.path).graph.initializer}
    weight = rand(4, 16, 8)
    scale = np.abs(weight).max() / 127
    (integers,) = [value for value in stored.values() if value.dtype == np.int8 and value.ndim == 3]
    assert np.abs(integers * scale - weight).max() <= scale / 2 * 1.01
