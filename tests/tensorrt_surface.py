"""Which names of the TensorRT, CUDA and NVML bindings our code uses and how it calls them, from its syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    "nvml": "nvml",
}
# Our own errors, and our own object around NVML, are called so too.
_OURS = {"error": {"message", "hint", "name"}, "nvml": {"energy", "process_bytes", "state", "close"}}


def used_names() -> dict[str, set[str]]:
    """Return class -> attributes used; "" is the module itself, "cuda" the CUDA runtime."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for owner, name in _uses(node):
                found.setdefault(owner, set()).add(name)
    return found


def used_calls() -> dict[str, dict[str, list[int]]]:
    """Return class -> function -> how many arguments our calls of it have."""
    found: dict[str, dict[str, set[int]]] = {}
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            at_cuda = _named(node)
            for owner, name in [("cuda", at_cuda)] if at_cuda else _uses(node.func):
                unbound = name.endswith(".__init__")  # called on the class, with the object as its first argument
                count = len(node.args) + len(node.keywords) - bool(at_cuda) - unbound
                found.setdefault(owner, {}).setdefault(name, set()).add(count)
    return {owner: {name: sorted(counts) for name, counts in calls.items()} for owner, calls in found.items()}


def takes(function: Any, count: int) -> bool:
    """Tell whether a function of the bindings takes so many arguments beside ``self``.

    pybind11 writes the signature into the docstring, and there a list of them where there are several.
    """
    text = (function.__init__ if isinstance(function, type) else function).__doc__ or ""
    signatures = re.findall(r"^(?:\d+\. )?\w+\((self: .*)\) -> ", text, re.MULTILINE)
    return any(_fits(_arguments(signature)[1:], count) for signature in signatures)


def lacking(module: Any, names: dict[str, list[str]], calls: dict[str, dict[str, list[int]]]) -> list[str]:
    """Return what TensorRT's bindings lack of the names that we use, and the calls that fit no signature."""
    found = [
        f"{owner}.{name}" for owner, listed in names.items() for name in listed if _get(module, owner, name) is None
    ]
    return found + [
        f"{owner}.{name} with {count} arguments"
        for owner, listed in calls.items()
        for name, counts in listed.items()
        for count in counts
        if (function := _get(module, owner, name)) is not None and not takes(function, count)
    ]


def _get(module: Any, owner: str, name: str) -> Any:
    found = getattr(module, owner, None) if owner else module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _fits(arguments: list[str], count: int) -> bool:
    return sum(" = " not in item for item in arguments) <= count <= len(arguments)


def _arguments(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _named(node: ast.AST) -> str:
    """Return the function that a ``call`` of ours names, empty where it is no such call."""
    if isinstance(node, ast.Call) and _chain(node.func)[-1] == "call" and node.args:
        return str(node.args[0].value) if isinstance(node.args[0], ast.Constant) else ""
    return ""


def _uses(node: ast.AST) -> Iterator[tuple[str, str]]:
    if _named(node):
        yield "cuda", _named(node)
    if not isinstance(node, ast.Attribute):
        return
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
