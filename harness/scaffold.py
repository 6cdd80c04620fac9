"""Write a complete plugin distribution to start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from harness import codec
from harness.errors import PlanError

# Kind -> the files that make its module, one after the other.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "method": ("method.py",),
    "target": ("target.head", "runtime.py", "target.tail"),
    "workload": ("workload.py",),
    "exporter": ("exporter.head", "runtime.py", "exporter.tail"),
}
_TORCH = '"compression-harness[torch,onnxruntime]>=0.1,<1"'
_ONNX = '"compression-harness[torch]>=0.1,<1", "onnx>=1.17"'


@dataclass(frozen=True)
class _Kind:
    """What differs between the distributions of two kinds."""

    description: str
    dependencies: str
    bench: str
    next: str


_KINDS: Mapping[str, _Kind] = {
    "method": _Kind(
        "A compression method for harness",
        _TORCH,
        "harness bench --workloads tiny-conv --methods {name} --targets onnxruntime",
        "Put your own computation into `compress`: a model in, a model out.",
    ),
    "target": _Kind(
        "A runtime for harness to measure on",
        _ONNX,
        "harness bench --workloads tiny-conv --methods baseline --targets {name}",
        "Put your runtime into `probe`, `capabilities`, `lower` and the session.",
    ),
    "workload": _Kind(
        "A model with its data for harness",
        _TORCH,
        "harness bench --workloads {name} --methods baseline,int8 --targets onnxruntime",
        "Put your data into `split`, your network into `model`, your metric into `score` and `accuracy`.",
    ),
    "exporter": _Kind(
        "A model format for harness, and a runtime that reads it",
        _ONNX,
        "harness bench --workloads tiny-conv --methods baseline --targets {name}-runtime",
        "Put your converter into `export`, and your runtime into `probe`, `lower` and the session.",
    ),
}


@dataclass(frozen=True)
class Made:
    """What was written: the folder, the entry point, and a command that measures with it."""

    folder: Path
    entry: str
    bench: str


def write(given: str, kind: str, where: Path) -> Made:
    """Write the distribution ``harness-NAME`` into a new folder.

    Args:
        given: In kebab-case, with or without the prefix "harness-".
        kind: "method", "target", "workload" or "exporter".
        where: The folder that gets the new one.

    Raises:
        PlanError: The name is no kebab-case, or the folder is there.
    """
    name = given.removeprefix("harness-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise PlanError(f"{given!r} is no name for a plugin", hint="kebab-case, such as low-rank")
    folder = where / f"harness-{name}"
    if folder.exists():
        raise PlanError(f"{folder} is there already", hint="give another name, or another folder with --out")
    about, module = _KINDS[kind], f"harness_{name.replace('-', '_')}"
    bench = about.bench.format(name=name)
    values = {
        "name": name, "module": module, "description": about.description, "dependencies": about.dependencies,
        "bench": bench, "next": about.next,
    }  # fmt: skip
    files = {
        "pyproject.toml": _filled(("pyproject.toml",), values),
        "README.md": _filled(("README.md",), values),
        f"{module}.py": _filled(_PARTS[kind], values),
        f"tests/test_{module}.py": _filled(("test.py",), values),
    }
    for path, text in files.items():
        codec.write_whole(folder / path, text.encode())
    return Made(folder, name, bench)


def _filled(parts: tuple[str, ...], values: Mapping[str, str]) -> str:
    home = resources.files("harness") / "templates"
    return "".join(Template((home / f"{part}.tmpl").read_text("utf-8")).substitute(values) for part in parts)
