"""What makes an ONNX file one that no runtime can run, said in one sentence before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import BadModel
from harness_onnx.graph import import_onnx, load, nested_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Operators of these domains have kernels in a runtime that this package supports; all others come with a library.
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.", "com.microsoft", "com.microsoft.", "org.openvinotoolkit", "trt.plugins")
_SAID = 240  # characters of a checker's message that are passed on
_STRICTNESS = {"check_type": True, "strict_mode": True, "data_prop": True}


def refuse_invalid(path: Path) -> None:
    """Refuse a file that cannot be run anywhere.

    The ONNX checker with strict shape inference judges; a file that it refuses and ONNX Runtime loads all the same is
    let through, since people run such files.

    Raises:
        BadModel: It cannot be parsed, holds an operator that nothing here has, or is invalid; says which node.
    """
    model = load(path)
    refuse_unknown_operators(model, path)
    said = _complaint(path)
    if said and not _runs(path):
        raise BadModel(
            f"model file {path} is not valid ONNX: {said}",
            hint="export it again, or mend that node; onnx.checker.check_model(path, full_check=True) must pass",
        )


def refuse_unknown_operators(model: ModelProto, path: Path) -> None:
    """Refuse an operator of a domain that no runtime brings and the file does not define.

    Raises:
        BadModel: Names the node, its operator and the domain.
    """
    defined = {(item.domain, item.name) for item in model.functions}
    for node in nodes_of(model):
        if (node.domain, node.op_type) not in defined and not _known(node.domain):
            where = node.name or f"that makes {node.output[0]!r}" if node.output else node.name
            raise BadModel(
                f"model file {path} has a custom operator: node {where} is {node.op_type} of the domain "
                f"{node.domain!r}, which no runtime here has",
                hint="export it in standard operators, or define it in the file as a local function",
            )


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Yield the nodes of a model, those of nested graphs and local functions too."""
    yield from nested_nodes(model.graph.node)
    for function in model.functions:
        yield from nested_nodes(function.node)


def _known(domain: str) -> bool:
    return any(domain == name or (name.endswith(".") and domain.startswith(name)) for name in _KNOWN_DOMAINS)


def _complaint(path: Path) -> str:
    """Return what the checker or the strict shape inference says against a file, on one line."""
    onnx = import_onnx()
    try:
        onnx.checker.check_model(str(path), full_check=True)
        if path.stat().st_size < onnx.checker.MAXIMUM_PROTOBUF:
            onnx.shape_inference.infer_shapes(load(path), **_STRICTNESS)
    except Exception as error:  # noqa: BLE001  besides its own classes the C++ code raises RuntimeError and ValueError
        return one_line(error)
    return ""


def one_line(error: BaseException) -> str:
    """Return the part of a library's message that says something, without its source lines and repeated labels."""
    text = re.sub(r"/\S+\.(?:cc|h|cpp):\d+ ?\S*(?:\([^)]*\))?", "", str(error))
    text = re.sub(r"\[(?:ShapeInferenceError|TypeInferenceError|ONNXRuntimeError)\] ?:?", "", text)
    text = re.sub(r"\(op_type:(\w+), node name: ([^)]*)\):", r"node \2 (\1):", text)
    text = " ".join(text.replace("==> Context:", " ").split())
    text = text.removeprefix("Inference error(s): ").strip()
    return text if len(text) <= _SAID else f"{text[:_SAID]}…"


def _runs(path: Path) -> bool:
    """Tell whether ONNX Runtime loads the file; False where it is not installed."""
    from harness_onnx.agreement import plain_session

    try:
        return plain_session(path) is not None
    except Exception:  # noqa: BLE001  whatever it is, the file does not load
        return False
