"""Bugs of OpenVINO's ONNX frontend and CPU plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.api import BugCase
from harness_runtime_bugs import runs
from harness_runtime_bugs.graphs import graph, op


def blocks_in_order() -> BugCase:
    """Dequantize blocks of two along axis 1: neighbours share a scale, every second element does not."""
    x, scale = np.full((1, 8), 9, np.uint8), np.array([[1, 2, 3, 4]], np.float32)
    zero = np.array([[1, 2, 3, 4]], np.uint8)
    right = (x.astype(float) - np.repeat(zero, 2, axis=1)) * np.repeat(scale, 2, axis=1)
    y = {"y": right.astype(np.float32)}
    build = graph(
        op("DequantizeLinear", "x s z", "y", axis=1, block_size=2),
        inputs={"x": x}, right=y, constants={"s": scale, "z": zero}, opset=21,
    )  # fmt: skip
    return BugCase({"x": x}, y, build, runs.openvino)


def _pairwise(kind: str, a: list[int], b: list[int], dtype: str, right: Callable[[Any, Any], Any], opset: int = 14,
              **attributes: Any) -> BugCase:  # fmt: skip
    """Return a case of one operator on two vectors of integers, whose result wraps around as two's complement does."""
    inputs = {"a": np.array(a, dtype), "b": np.array(b, dtype)}
    exact = [right(first, second) for first, second in zip(a, b, strict=True)]
    bits, signed = np.dtype(dtype).itemsize * 8, np.dtype(dtype).kind == "i"
    wrapped = [(value + (2 ** (bits - 1) if signed else 0)) % 2**bits for value in exact]
    y = {"y": np.array([value - (2 ** (bits - 1) if signed else 0) for value in wrapped], dtype)}
    build = graph(op(kind, "a b", "y", **attributes), inputs=inputs, right=y, opset=opset)
    return BugCase(inputs, y, build, runs.openvino)


def unsigned_sum() -> BugCase:
    """Add unsigned bytes beyond 255."""
    return _pairwise("Add", [200, 100, 255, 128], [100, 200, 10, 200], "uint8", lambda a, b: a + b)


def unsigned_product() -> BugCase:
    """Multiply unsigned bytes beyond 255."""
    return _pairwise("Mul", [200, 100, 50, 10], [200, 3, 6, 30], "uint8", lambda a, b: a * b)


def signed_sum() -> BugCase:
    """Add signed bytes beyond 127."""
    return _pairwise("Add", [100, 127, -128, -100], [100, 10, -10, -50], "int8", lambda a, b: a + b)


def signed_difference() -> BugCase:
    """Subtract signed bytes below -128."""
    return _pairwise("Sub", [-128, 127, -1, 0], [1, -128, -127, 100], "int8", lambda a, b: a - b)


def large_remainder() -> BugCase:
    """Take remainders of integers that float32 does not hold exactly."""
    values = [3, 1234567890, 999999999, 1999999993, 1500000001]
    return _pairwise("Mod", values, [13] * 5, "int64", lambda a, b: a % b, opset=18, fmod=0)


def _quotient(a: int, b: int) -> int:
    """Divide towards zero, as ONNX does with integers."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def large_quotient() -> BugCase:
    """Divide 32-bit integers that float32 does not hold exactly."""
    return _pairwise("Div", [777777777, 1111111111, 1900000000, -1999999999], [11] * 4, "int32", _quotient, opset=18)


def wide_quotient() -> BugCase:
    """Divide integers of more than 32 bits."""
    return _pairwise("Div", [2**62, 2**40, 2**31, 2**31 - 1], [11] * 4, "int64", _quotient, opset=18)


def integer_power() -> BugCase:
    """Raise integers to powers that float32 does not hold exactly."""
    return _pairwise("Pow", [13, 17, 19, 23], [8, 7, 7, 6], "int64", lambda a, b: a**b, opset=18)


def large_float_as_integer() -> BugCase:
    """Cast floats beyond 32 bits, all of which 64 bits hold exactly."""
    x = np.array([5e18, -5e18, 1e15, 7.7], np.float32)
    y = {"y": np.array([int(value) for value in x.astype(float)], np.int64)}
    build = graph(op("Cast", "x", "y", to=7), inputs={"x": x}, right=y, opset=18)
    return BugCase({"x": x}, y, build, runs.openvino)


def not_a_number_as_truth() -> BugCase:
    """Cast floats to truth values: ONNX says that zeros alone are false."""
    x = np.array([np.nan, -np.nan, 7.5, -0.0], np.float32)
    y = {"y": np.array([True, True, True, False])}
    build = graph(op("Cast", "x", "y", to=9), inputs={"x": x}, right=y, opset=20)
    return BugCase({"x": x}, y, build, runs.openvino)


def halves_to_int4() -> BugCase:
    """Cast halves to 4-bit integers: ties go to the even neighbour."""
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    y = {"y": np.clip(np.rint(x), -8, 7).astype(np.float32)}
    build = graph(op("Cast", "x", "i", to=22), op("Cast", "i", "y", to=1), inputs={"x": x}, right=y, opset=21)
    return BugCase({"x": x}, y, build, runs.openvino)


def first_smallest() -> BugCase:
    """Find the first smallest of integers of which the first four are the larger ones."""
    x = np.full(16, -1, np.int32)
    x[:4] = 0
    y = {"y": np.array([int(np.argmin(x))], np.int64)}
    build = graph(op("ArgMin", "x", "y", axis=0, keepdims=1), inputs={"x": x}, right=y, opset=11)
    return BugCase({"x": x}, y, build, runs.openvino)
