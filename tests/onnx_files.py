"""Small ONNX files whose MACs are known by hand, and the job around them; no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from harness.api import Artifact, Job, Model, Options, Precision, Split, TensorSpec

# conv0 8x3x3x3 and conv1 16x8x3x3 on 16x16 with padding, then a Gemm of 16x10
CONV_MACS = {"conv0": 16 * 16 * 8 * 27, "conv1": 16 * 16 * 16 * 72, "head": 160}
STATIC = Precision(weights="int8", activations="int8", scheme="static")
DYNAMIC = Precision(weights="int8", activations="int8", scheme="dynamic")
HALF = Precision(weights="float16", activations="float16")


@dataclass(frozen=True)
class Items:
    """Calibration data; there is no other split here."""

    inputs: dict[str, np.ndarray]

    def split(self, name: str) -> Split:
        assert name == "calibration"
        return Split(self.inputs)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def write(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]],
          weights: dict[str, np.ndarray]) -> ModelProto:  # fmt: skip
    """Save a graph of float inputs and outputs at opset 18."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, str(path))
    return model


def conv_net(folder: Path, *, weights: dict[str, np.ndarray] | None = None) -> Model:
    """Two convolutions, a global mean and a Gemm; the free batch has an odd name."""
    rng = np.random.default_rng(0)
    values = {
        "conv0.weight": _weights(rng, 8, 3, 3, 3), "conv0.bias": _weights(rng, 8, 1).ravel(),
        "conv1.weight": _weights(rng, 16, 8, 3, 3), "conv1.bias": _weights(rng, 16, 1).ravel(),
        "head.weight": _weights(rng, 10, 16), "head.bias": _weights(rng, 10, 1).ravel(),
        "shape": np.array([0, -1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "conv0.weight", "conv0.bias"], ["a"], name="conv0", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu0"),
        helper.make_node("Conv", ["b", "conv1.weight", "conv1.bias"], ["c"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], name="relu1"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Reshape", ["e", "shape"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
    ]
    path = folder / "net.onnx"
    write(path, nodes, {"image": ["N", 3, 16, 16]}, {"logits": ["N", 10]}, {**values, **(weights or {})})
    return Model("onnx", path, {"image": TensorSpec("float32", (None, 3, 16, 16))}, ("logits",))


def dense_net(folder: Path, *, batch: int | str = "n") -> Model:
    """MatMul with a bias, which ONNX Runtime fuses under a new name; MatMul of a transposed weight; Gemm."""
    rng = np.random.default_rng(4)
    weights = {"w0": _weights(rng, 32, 48), "b0": _weights(rng, 48, 1).ravel(), "w1": _weights(rng, 40, 48),
               "w2": _weights(rng, 24, 40), "b2": _weights(rng, 24, 1).ravel()}  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="mm"),
        helper.make_node("Add", ["a", "b0"], ["b"], name="add"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("Transpose", ["w1"], ["w1t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["c", "w1t"], ["d"], name="mm1"),
        helper.make_node("Gemm", ["d", "w2", "b2"], ["y"], name="gemm", transB=1),
    ]
    path = folder / "dense.onnx"
    write(path, nodes, {"x": [batch, 32]}, {"y": [batch, 24]}, weights)
    fixed = batch if isinstance(batch, int) else None
    return Model("onnx", path, {"x": TensorSpec("float32", (fixed, 32))}, ("y",))


DENSE_MACS = {"w0": 32 * 48, "w1": 48 * 40, "w2": 40 * 24}  # of dense_net, by weight


GRU_MACS = {"gru": 8 * 3 * 16 * (8 + 16), "head": 160}  # 8 steps of 8 features, 16 hidden


def gru_net(folder: Path) -> Model:
    """A GRU over 8 steps and a Gemm on its last state."""
    rng = np.random.default_rng(6)
    weights = {
        "w": _weights(rng, 1, 48, 8), "r": _weights(rng, 1, 48, 16), "b": np.zeros((1, 96), np.float32),
        "axis": np.array([0], np.int64), "head.weight": _weights(rng, 10, 16),
        "head.bias": _weights(rng, 10, 1).ravel(),
    }  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], name="turn", perm=[1, 0, 2]),
        helper.make_node("GRU", ["steps", "w", "r", "b"], ["", "last"], name="gru", hidden_size=16,
                         linear_before_reset=1),
        helper.make_node("Squeeze", ["last", "axis"], ["state"], name="squeeze"),
        helper.make_node("Gemm", ["state", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
    ]  # fmt: skip
    path = folder / "gru.onnx"
    write(path, nodes, {"x": ["n", 8, 8]}, {"logits": ["n", 10]}, weights)
    return Model("onnx", path, {"x": TensorSpec("float32", (None, 8, 8))}, ("logits",))


# 8 tokens of width 16, two heads of 8, a hidden layer of 32; scores and weighted values have no weights
TRANSFORMER_MACS = {
    **dict.fromkeys(("query", "key", "value", "mix"), 8 * 16 * 16),
    **dict.fromkeys(("scores", "values"), 2 * 8 * 8 * 8),
    **dict.fromkeys(("wide", "narrow"), 8 * 16 * 32),
    "head": 160,
}


def transformer_net(folder: Path) -> Model:
    """One encoder layer of two heads, as exporters write it, and a Gemm on the mean token."""
    rng = np.random.default_rng(7)
    weights = {f"{name}.weight": _weights(rng, 16, 16) for name in ("query", "key", "value", "mix")}
    weights |= {
        "wide.weight": _weights(rng, 16, 32), "narrow.weight": _weights(rng, 32, 16),
        "head.weight": _weights(rng, 10, 16),
        "head.bias": _weights(rng, 10, 1).ravel(), "ones": np.ones(16, np.float32), "zeros": np.zeros(16, np.float32),
        "scale": np.array(8**-0.5, np.float32), "split": np.array([0, 8, 2, 8], np.int64),
        "join": np.array([0, 8, 16], np.int64), "one": np.array([1], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = []
    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["x", f"{name}.weight"], [f"{name}.flat"], name=name),
            node("Reshape", [f"{name}.flat", "split"], [f"{name}.split"], name=f"{name}.reshape"),
            node("Transpose", [f"{name}.split"], [name], name=f"{name}.turn", perm=order),
        ]
    nodes += [
        node("MatMul", ["query", "key"], ["raw"], name="scores"),
        node("Mul", ["raw", "scale"], ["scaled"], name="scaling"),
        node("Softmax", ["scaled"], ["shares"], name="softmax", axis=-1),
        node("MatMul", ["shares", "value"], ["heads"], name="values"),
        node("Transpose", ["heads"], ["beside"], name="heads.turn", perm=[0, 2, 1, 3]),
        node("Reshape", ["beside", "join"], ["joined"], name="heads.reshape"),
        node("MatMul", ["joined", "mix.weight"], ["mixed"], name="mix"),
        node("Add", ["mixed", "x"], ["sum0"], name="add0"),
        node("LayerNormalization", ["sum0", "ones", "zeros"], ["norm0"], name="norm0"),
        node("MatMul", ["norm0", "wide.weight"], ["hidden"], name="wide"),
        node("Relu", ["hidden"], ["active"], name="relu"),
        node("MatMul", ["active", "narrow.weight"], ["back"], name="narrow"),
        node("Add", ["back", "norm0"], ["sum1"], name="add1"),
        node("LayerNormalization", ["sum1", "ones", "zeros"], ["norm1"], name="norm1"),
        node("ReduceMean", ["norm1", "one"], ["mean"], name="mean", keepdims=0),
        node("Gemm", ["mean", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
    ]
    path = folder / "transformer.onnx"
    write(path, nodes, {"x": ["n", 8, 16]}, {"logits": ["n", 10]}, weights)
    return Model("onnx", path, {"x": TensorSpec("float32", (None, 8, 16))}, ("logits",))


def two_inputs(folder: Path) -> Model:
    """Two dense branches that share one square weight, and their difference."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gemm", ["left", "square"], ["a"], name="gemm0", transB=1),
        helper.make_node("Gemm", ["right", "square"], ["b"], name="gemm1", transB=1),
        helper.make_node("Sub", ["a", "b"], ["difference"], name="sub"),
    ]
    path = folder / "pair.onnx"
    write(path, nodes, {"left": ["n", 32], "right": ["n", 32]}, {"difference": ["n", 32]},
          {"square": _weights(rng, 32, 32)})  # fmt: skip
    spec = TensorSpec("float32", (None, 32))
    return Model("onnx", path, {"left": spec, "right": spec}, ("difference",))


def binary_weights(*shape: int) -> np.ndarray:
    """Return weights of plus or minus one scale per output channel."""
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.05, 0.1, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32)
    return np.where(rng.random(shape) < 0.5, scale, -scale).astype(np.float32)


def sign_net(folder: Path, *, channels: int = 16, side: int = 6, layers: int = 2, signs: bool = True) -> Model:
    """Convolutions of signs by weights of one magnitude per output channel, as binary layers are exported.

    Without ``signs`` they take ReLUs: the plain network of the same shapes.
    """
    weights: dict[str, Any] = {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-1)}
    weights = {name: np.array(value) for name, value in weights.items()}
    nodes, value = [], "x"
    for layer in range(layers):
        weights[f"w{layer}"] = binary_weights(channels, channels, 3, 3)
        weights[f"b{layer}"] = _weights(np.random.default_rng(layer), channels, 1).ravel()
        above, seen = f"above{layer}", f"seen{layer}"
        if signs:
            nodes += [
                helper.make_node("Greater", [value, "zero"], [above], name=above),
                helper.make_node("Where", [above, "one", "minus"], [seen], name=seen),
            ]
        else:
            nodes += [helper.make_node("Relu", [value], [seen], name=seen)]
        taken = [seen, f"w{layer}", f"b{layer}"]
        nodes += [helper.make_node("Conv", taken, [f"y{layer}"], name=f"conv{layer}", pads=[1] * 4)]
        value = f"y{layer}"
    path, shape = folder / f"signs{int(signs)}.onnx", [channels, side, side]
    write(path, nodes, {"x": ["n", *shape]}, {value: ["n", *shape]}, weights)
    return Model("onnx", path, {"x": TensorSpec("float32", (None, *shape))}, (value,))


def items(model: Model, count: int = 48, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {name: (count, *spec.shape[1:]) for name, spec in model.inputs.items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def make_job(out: Path, model: Model, count: int = 48) -> Job:
    out.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("harness")
    workload: Any = SimpleNamespace(inputs=model.inputs, outputs=model.outputs)
    return Job(out, 0, 1, Items(items(model, count)), workload, lambda share, words: None, log)


def outputs(spec: Any, artifact: Artifact, feed: dict[str, np.ndarray], params: Any = None) -> dict[str, np.ndarray]:
    """Run a feed through a session of purpose "accuracy"."""
    session = spec.open(artifact, params or spec.params(), Options(), "accuracy")
    try:
        return {name: np.array(value) for name, value in session.run(feed).items()}
    finally:
        session.close()


def placed(spec: Any, artifact: Artifact, model: Model, batch: int = 1) -> tuple[Any, ...]:
    """Run a few times with purpose "placement" and return what ran."""
    session = spec.open(artifact, spec.params(), Options(batch=batch), "placement")
    try:
        for _ in range(3):
            session.run(items(model, batch))
        return tuple(session.placements())
    finally:
        session.close()


def sqnr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the signal-to-quantization-noise ratio in dB."""
    return float(10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()))
