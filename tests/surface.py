"""The public surface as data: names, parameters and fields, to compare releases with."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
from typing import Any

MODULES = ("harness.api", "harness.testing", "harness_torch", "harness_onnx")


def parameters(item: Any) -> dict[str, bool]:
    """Return parameter -> whether it must be given."""
    try:
        signature = inspect.signature(item)
    except (ValueError, TypeError):
        return {}
    return {name: value.default is value.empty for name, value in signature.parameters.items()}


def describe(module: str) -> dict[str, Any]:
    found = importlib.import_module(module)
    described = {}
    for name in sorted(found.__all__):
        item = getattr(found, name)
        if inspect.isclass(item) and dataclasses.is_dataclass(item):
            described[name] = {"kind": "dataclass", "parameters": parameters(item)}
        elif inspect.isclass(item):
            described[name] = {"kind": "class", "parameters": {}}
        elif inspect.isroutine(item):
            described[name] = {"kind": "function", "parameters": parameters(item)}
        else:
            described[name] = {"kind": "value", "parameters": {}}
    return described


if __name__ == "__main__":
    sys.stdout.write(json.dumps({module: describe(module) for module in sys.argv[1:]}, indent=1) + "\n")
