"""Bugs of ONNX Runtime's optimizer and kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.api import BugCase
from harness_runtime_bugs import runs
from harness_runtime_bugs.graphs import MICROSOFT, Int4, graph, op


def _float(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def blocked_int4() -> BugCase:
    """Multiply by 4-bit weights with a scale for each 32 rows; the optimizer makes MatMulNBits of it.

    Its kernel may quantize the activations to 8 bits too: an error of a hundredth of the largest output is no bug of
    the layout, a mixed-up block is far beyond it.
    """
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, 64)).astype(np.float32)
    weight = chance.integers(-8, 8, (64, 32))
    scale = (0.01 * (1 + np.arange(64).reshape(2, 32))).astype(np.float32)
    right = x.astype(float) @ (weight * np.repeat(scale, 32, axis=0).astype(float))
    y = {"y": right.astype(np.float32)}
    build = graph(
        op("DequantizeLinear", "w s", "f", axis=0, block_size=32),
        op("MatMul", "x f", "y"),
        inputs={"x": x}, right=y, constants={"w": Int4(weight), "s": scale}, opset=21,
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime, atol=float(np.abs(right).max()) / 50)


def no_zero_point() -> BugCase:
    """Dequantize signed constants that have no zero point, and reshape them."""
    weight = np.array([12, -45, 7, -3], np.int8)
    x = np.zeros((2, 2), np.float32)
    y = {"y": (weight * 0.02).reshape(2, 2).astype(np.float32)}
    build = graph(
        op("DequantizeLinear", "w s", "f"),
        op("Reshape", "f shape", "r"),
        op("Add", "x r", "y"),
        inputs={"x": x}, right=y,
        constants={"w": weight, "s": _scalar(0.02), "shape": np.array([2, 2], np.int64)},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def transposed_no_zero_point() -> BugCase:
    """Transpose what was dequantized from signed values without a zero point, in an opset before 21.

    The optimizer quantizes again behind the transpose; without a zero point that means unsigned, and only opset 21 can
    say otherwise.
    """
    x = np.arange(-12, 12, dtype=np.int8).reshape(1, 4, 6)
    y = {"y": (-x.transpose(0, 2, 1) * 0.5).astype(np.float32)}
    build = graph(
        op("DequantizeLinear", "x s", "f"),
        op("Transpose", "f", "t", perm=[0, 2, 1]),
        op("Neg", "t", "y"),
        inputs={"x": x}, right=y, constants={"s": _scalar(0.5)},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def large_blocks() -> BugCase:
    """Multiply by 4-bit weights in blocks of 512: every code is 2, every zero point 3, every scale 0.5."""
    rows, columns, block = 2048, 4, 512
    blocks = rows // block
    x = np.linspace(-1, 2, rows, dtype=np.float32).reshape(1, rows)
    right = np.full((1, columns), (2 - 3) * 0.5 * x.astype(float).sum(), np.float32)
    build = graph(
        op("MatMulNBits", "x w s z", "y", domain=MICROSOFT, K=rows, N=columns, bits=4, block_size=block),
        inputs={"x": x}, right={"y": right},
        constants={
            "w": np.full((columns, blocks, block // 2), 0x22, np.uint8),
            "s": np.full((columns, blocks), 0.5, np.float32),
            "z": np.full((columns, blocks // 2), 0x33, np.uint8),
        },
    )  # fmt: skip
    return BugCase({"x": x}, {"y": right}, build, runs.onnxruntime, rtol=1e-4)


def massive_activation() -> BugCase:
    """Choose between two logits beside an activation of 1000 that neither of them reads.

    With ``accuracy_level=4`` the activations of a block share one 8-bit scale, here 7.9, and the small ones vanish.
    """
    x = np.zeros((1, 32), np.float32)
    x[0, :3] = 1.0, 2.0, 1000.0
    codes = np.full((2, 32), 8, np.uint8)  # 8 stands for zero
    codes[0, 0] = codes[1, 1] = 9
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(2, 1, 16)
    right: dict[str, np.ndarray] = {"logits": np.array([[1, 2]], np.float32), "token": np.array([1], np.int64)}
    build = graph(
        op("MatMulNBits", "x w s", "logits", domain=MICROSOFT, K=32, N=2, bits=4, block_size=32, accuracy_level=4),
        op("ArgMax", "logits", "token", axis=-1, keepdims=0),
        inputs={"x": x}, right=right, constants={"w": packed, "s": np.ones((2, 1), np.float32)},
    )  # fmt: skip
    return BugCase({"x": x}, right, build, runs.onnxruntime, atol=0.1)


def quantized_resize() -> BugCase:
    """Resize quantized values linearly: halves of 2, 7, 4 land on quarters, which round to the nearest integer."""
    x = np.array([[[[2, 7, 4]]]], np.float32)
    at = np.clip((np.arange(6) + 0.5) / 2 - 0.5, 0, 2)  # half_pixel
    y = {"y": np.rint(np.interp(at, np.arange(3), [2, 7, 4])).astype(np.float32).reshape(1, 1, 1, 6)}
    build = graph(
        op("QuantizeLinear", "x s z", "xq"),
        op("DequantizeLinear", "xq s z", "xf"),
        op("Resize", "xf - - sizes", "r", mode="linear", coordinate_transformation_mode="half_pixel"),
        op("QuantizeLinear", "r s z", "yq"),
        op("DequantizeLinear", "yq s z", "y"),
        inputs={"x": x}, right=y,
        constants={"s": _scalar(1), "z": np.array(0, np.int8), "sizes": np.array([1, 1, 1, 6], np.int64)},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def opset_23() -> BugCase:
    """Quantize and dequantize in opset 23."""
    x = _float(-1.0, -0.26, 0.0, 0.24, 3.0)
    y = {"y": (np.clip(np.rint(x / 0.02), -128, 127) * 0.02).astype(np.float32)}
    build = graph(
        op("QuantizeLinear", "x s z", "q"),
        op("DequantizeLinear", "q s z", "y"),
        inputs={"x": x}, right=y, constants={"s": _scalar(0.02), "z": np.array(0, np.int8)}, opset=23,
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def unlike_scale() -> BugCase:
    """Quantize half floats by a float32 scale, as opset 23 allows."""
    x = np.array([-1.0, -0.5, 0.0, 0.25, 3.0], np.float16)
    y = {"y": np.clip(np.rint(x.astype(float) / 0.25), -128, 127).astype(np.int8)}
    build = graph(
        op("QuantizeLinear", "x s", "y", output_dtype=3),  # int8
        inputs={"x": x}, right=y, constants={"s": _float(0.25)}, opset=23,
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def saturated_softmax() -> BugCase:
    """Quantize a softmax of one sure class: 1 is beyond the largest code, 127, and must stay there."""
    x = np.array([[127, -127, -127, -127]], np.int8)
    y = {"y": np.array([[127, -128, -128, -128]], np.int8)}
    build = graph(
        op("DequantizeLinear", "x s zero", "xf"),
        op("Softmax", "xf", "p", axis=-1),
        op("QuantizeLinear", "p t low", "y"),
        inputs={"x": x}, right=y,
        constants={
            "s": _scalar(0.1), "zero": np.array(0, np.int8), "t": _scalar(1 / 256), "low": np.array(-128, np.int8),
        },
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def maximum_of_nans() -> BugCase:
    """Take the largest of values with two, three and four NaN in front; numpy's answer is NaN each time."""
    arrays = {f"x{count}": _float(*[np.nan] * count, 42.0) for count in (2, 3, 4)}
    right = {f"y{name[1:]}": np.array([np.max(array)], np.float32) for name, array in arrays.items()}
    build = graph(
        *(op("ReduceMax", name, f"y{name[1:]}") for name in arrays), inputs=arrays, right=right, opset=13
    )  # fmt: skip
    return BugCase(arrays, right, build, runs.onnxruntime)


def shape_from_reshape() -> BugCase:
    """Reshape by a shape that is itself the result of a Reshape."""
    inputs: dict[str, np.ndarray] = {"x": np.array([[10, 20], [30, 40]], np.float32), "s": np.array([[4]], np.int64)}
    y = {"y": _float(10, 20, 30, 40)}
    build = graph(
        op("Reshape", "s one", "shape"),
        op("Reshape", "x shape", "y"),
        inputs=inputs, right=y, constants={"one": np.array([1], np.int64)}, opset=21,
    )  # fmt: skip
    return BugCase(inputs, y, build, runs.onnxruntime)


def times_folded_one(producer: str = "Identity") -> BugCase:
    """Multiply what an operator without effect gives by 1/1, which the optimizer folds."""
    x = _float(1, -2, 3)
    effect: dict[str, Any] = {"Cast": {"to": 1}}.get(producer, {})
    build = graph(
        op(producer, "x", "mid", **effect),
        op("Div", "one one2", "folded"),
        op("Mul", "mid folded", "wrapped"),
        op("Add", "wrapped zero", "y"),
        inputs={"x": x}, right={"y": x},
        constants={"one": _float(1), "one2": _float(1), "zero": _float(0)},
    )  # fmt: skip
    return BugCase({"x": x}, {"y": x}, build, runs.onnxruntime)


def cast_times_folded_one() -> BugCase:
    """The same behind a cast to the type that the values have."""
    return times_folded_one("Cast")


def dropout_times_folded_one() -> BugCase:
    """The same behind a dropout, which does nothing outside training."""
    return times_folded_one("Dropout")


def double_quick_gelu() -> BugCase:
    """Compute x · sigmoid(1.702 x) in double precision."""
    x = np.array([-2.0, -0.5, 0.0, 1.0, 3.0])
    y = {"y": x / (1 + np.exp(-1.702 * x))}
    build = graph(
        op("Mul", "x a", "scaled"),
        op("Sigmoid", "scaled", "gate"),
        op("Mul", "x gate", "y"),
        inputs={"x": x}, right=y, constants={"a": np.array(1.702)},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def norm_scaled_wider() -> BugCase:
    """Divide by a root mean square, then multiply by two factors: the product is wider than what was normed."""
    x, scale = np.array([[2.0]], np.float32), _float(1.0, 3.0)
    root = np.sqrt(np.mean(x.astype(float) ** 2, axis=-1, keepdims=True) + 1e-5)
    y = {"y": (x / root * scale).astype(np.float32)}
    build = graph(
        op("Pow", "x two", "squares"),
        op("ReduceMean", "squares", "mean", axes=[-1], keepdims=1),
        op("Add", "mean eps", "above"),
        op("Sqrt", "above", "root"),
        op("Div", "x root", "normed"),
        op("Mul", "normed scale", "y"),
        inputs={"x": x}, right=y, constants={"two": _scalar(2), "eps": _scalar(1e-5), "scale": scale},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def bias_of_another_scale() -> BugCase:
    """Convolve quantized values, with a bias whose scale is not that of the products."""
    x = np.array([[[[0.5, -0.25], [1.0, 0.75]]]], np.float32)
    weight, bias = np.array([[[[64]]], [[[-32]]]], np.int8), np.array([100, -50], np.int32)
    xs, ws, bs, ys = 0.01, 0.02, 0.005, 0.01
    xq = np.clip(np.rint(x / np.float32(xs)), -128, 127)
    full = (xq * xs) * (weight.reshape(1, 2, 1, 1) * ws) + (bias * bs).reshape(1, 2, 1, 1)
    y = {"y": (np.clip(np.rint(full / ys), -128, 127) * ys).astype(np.float32)}
    build = graph(
        op("QuantizeLinear", "x xs zero", "xq"),
        op("DequantizeLinear", "xq xs zero", "xf"),
        op("DequantizeLinear", "w ws zero", "wf"),
        op("DequantizeLinear", "b bs", "bf"),
        op("Conv", "xf wf bf", "c"),
        op("QuantizeLinear", "c ys zero", "yq"),
        op("DequantizeLinear", "yq ys zero", "y"),
        inputs={"x": x}, right=y,
        constants={
            "xs": _scalar(xs), "ws": _scalar(ws), "bs": _scalar(bs), "ys": _scalar(ys), "zero": np.array(0, np.int8),
            "w": weight, "b": bias,
        },
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime, atol=ys * 1.01)  # a tie may round either way


def padded_average() -> BugCase:
    """Pad with zeros, then average: the zeros of Pad count, whatever AveragePool does with paddings of its own."""
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
    wide = np.pad(x[0, 0], 1)
    means = [[wide[row : row + 3, column : column + 3].mean() for column in range(4)] for row in range(4)]
    y = {"y": np.array(means, np.float32).reshape(1, 1, 4, 4)}
    build = graph(
        op("Pad", "x pads", "wide"),
        op("AveragePool", "wide", "y", kernel_shape=[3, 3], pads=[0, 0, 0, 0]),
        inputs={"x": x}, right=y, constants={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def saturating_pairs() -> BugCase:
    """Multiply unsigned by signed bytes: on AVX2 alone, sums of two products may not fit into 16 bits."""
    x = np.array([[210, 198, 234]], np.uint8)
    weight = np.array([[-81, 127], [-80, 127], [127, 127]], np.int8)
    y = {"y": x.astype(np.int32) @ weight.astype(np.int32)}
    build = graph(op("MatMulInteger", "x w", "y"), inputs={"x": x}, right=y, constants={"w": weight})
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def _reshaped_integers(*zero: str) -> BugCase:
    x = np.array([[-44810, -7, 0, 5, 90, 400]], np.int32)
    y = {"y": (-x * 0.5).reshape(1, 2, 3).astype(np.float32)}
    build = graph(
        op("DequantizeLinear", " ".join(("x", "s", *zero)), "f"),
        op("Reshape", "f shape", "r"),
        op("Neg", "r", "y"),
        inputs={"x": x}, right=y,
        constants={
            "s": _scalar(0.5), "shape": np.array([0, 2, 3], np.int64), **dict.fromkeys(zero, np.array(0, np.int32)),
        },
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.onnxruntime)


def reshaped_integers() -> BugCase:
    """Dequantize 32-bit integers with a zero point, and reshape them: the optimizer quantizes them again behind it."""
    return _reshaped_integers("z")


def reshaped_integers_no_zero_point() -> BugCase:
    """The same without a zero point: what is quantized again is taken for unsigned bytes."""
    return _reshaped_integers()
