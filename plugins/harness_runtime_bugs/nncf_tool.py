"""Bugs of NNCF: what it writes is run, and compared with the float model by numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import BugCase
from harness_runtime_bugs import runs
from harness_runtime_bugs.graphs import graph, op

Arrays = Mapping[str, np.ndarray]


def _product(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, Arrays, Any]:
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, rows)).astype(np.float32)
    weight = chance.standard_normal((rows, columns)).astype(np.float32)
    right = {"y": (x @ weight).astype(np.float32)}
    return x, weight, right, graph(op("MatMul", "x w", "y"), inputs={"x": x}, right=right, constants={"w": weight},
                                   opset=21)  # fmt: skip


def original_kept() -> BugCase:
    """Compress weights to 4 bits: the model that was given must still be the float one."""
    x, weight, _right, build = _product(256, 64)

    def answer(path: Path, _inputs: Arrays) -> Arrays:
        import nncf
        import openvino as ov

        model = ov.Core().read_model(str(path))
        nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, all_layers=True)
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        (largest,) = [node for node in constants if np.prod(list(node.get_output_shape(0))) == weight.size]
        return {"kept": np.array(largest.get_element_type() == ov.Type.f32)}

    return BugCase({"x": x}, {"kept": np.array(True)}, build, answer)


def shared_by_identities() -> BugCase:
    """Quantize a transformer's graph in which one matrix serves two products, each through an Identity of its own."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, 4, 8)).astype(np.float32)
    weight = (chance.standard_normal((8, 8)) / 3).astype(np.float32)
    right = {"y": (np.maximum(x @ weight, 0) @ weight).astype(np.float32)}
    build = graph(
        op("Identity", "w", "w1"),
        op("Identity", "w", "w2"),
        op("MatMul", "x w1", "h"),
        op("Relu", "h", "r"),
        op("MatMul", "r w2", "y"),
        inputs={"x": x}, right=right, constants={"w": weight},
    )  # fmt: skip

    def answer(path: Path, inputs: Arrays) -> Arrays:
        import nncf
        import onnx

        made = nncf.quantize(onnx.load(str(path)), nncf.Dataset([dict(inputs)]), model_type=nncf.ModelType.TRANSFORMER)
        quantized = path.with_name("quantized.onnx")
        onnx.save(made, str(quantized))
        return runs.onnxruntime(quantized, inputs)

    return BugCase({"x": x}, right, build, answer, atol=float(np.abs(right["y"]).max()) / 15)


def blocked_embedding() -> BugCase:
    """Compress an embedding to 4 bits in groups: the axis that the file declares is the one that the groups lie along.

    The table holds what 4 bits in groups of 32 give back exactly: -8 to 7 times a scale for each group.
    """
    codes = np.tile(np.arange(-8, 8), 16 * 64 // 16).reshape(16, 64)
    table = (codes * np.repeat(1 + np.arange(32).reshape(16, 2), 32, axis=1)).astype(np.float32) / 8
    ids = np.array([3, 0, 15], np.int64)
    right = {"y": table[ids]}
    build = graph(
        op("Gather", "table ids", "e"), op("MatMul", "e eye", "y"),
        inputs={"ids": ids}, right=right, constants={"table": table, "eye": np.eye(64, dtype=np.float32)}, opset=21,
    )  # fmt: skip

    def answer(path: Path, inputs: Arrays) -> Arrays:
        import nncf
        import onnx
        from onnx.reference import ReferenceEvaluator

        made = nncf.compress_weights(
            onnx.load(str(path)), mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, all_layers=True,
            ignored_scope=nncf.IgnoredScope(types=["MatMul"]),
        )  # fmt: skip
        return {"y": ReferenceEvaluator(made).run(["y"], dict(inputs))[0]}  # the file's meaning, whatever runs it

    return BugCase({"ids": ids}, right, build, answer, atol=0.6)
