"""Which names of the TensorRT and CUDA bindings our code uses, read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "targets" / "harness_tensorrt"
# What our variables hold. A method called on anything else of the library would escape this list; keep to these names.
CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "total": "ITensor",
}
_OURS = {"error": {"message", "hint", "name"}}  # our own errors are called error too


def used_names() -> dict[str, set[str]]:
    """Return class -> attributes used; "" is the module itself, "cuda" the CUDA runtime."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCES.glob("*.py")):
        for owner, name in _uses(ast.parse(path.read_text())):
            found.setdefault(owner, set()).add(name)
    return found


def _uses(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _chain(node.func)[-1] == "call" and isinstance(node.args[0], ast.Constant):
            yield "cuda", str(node.args[0].value)
        if not isinstance(node, ast.Attribute):
            continue
        chain = _chain(node)
        if "api" in chain[:-1]:
            yield "cuda", ".".join(chain[chain.index("api") + 1 :])
        owner = chain[-2].lstrip("_") if len(chain) > 1 else ""
        if chain[0] == "trt" or "_trt" in chain:
            name = ".".join(chain[chain.index("_trt") + 1 if "_trt" in chain else 1 :])
            if name:
                yield "", name
        elif owner in CLASSES and (len(chain) == 2 or chain[0] == "self") and node.attr not in _OURS.get(owner, ()):
            yield CLASSES[owner], node.attr


def _chain(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else ["?"]
