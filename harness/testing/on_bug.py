"""Checks of bugs of runtimes: the case can be made, the same every time, and without the runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from harness.imports import told

if TYPE_CHECKING:
    from harness.testing.bench import Bench
    from harness.testing.results import Judge

_MAKE = """
import hashlib, json, os, sys
from harness import imports
imports.take()
import numpy as np
from harness.plugins import load_registry
from harness.runtime_bugs import load_case
out, sys.stdout = sys.stdout, sys.stderr
spec = load_registry(only={sys.argv[1]}).bugs[sys.argv[2]].spec
def made():
    case = load_case(spec)
    named = [(kind, *item) for kind in ("inputs", "right") for item in getattr(case, kind).items()]
    arrays = [(kind, name, np.asarray(array)) for kind, name, array in named]
    return [(kind, name, str(a.dtype), a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for kind, name, a in arrays]
try:
    problem, first, second = "", made(), made()
except Exception as error:
    problem, first, second = f"{type(error).__name__}: {error}", [], []
print(json.dumps({"problem": problem, "same": first == second, "right": sum(row[0] == "right" for row in first),
                  "modules": sorted({name.partition(".")[0] for name in sys.modules})}), file=out)
"""


def check_bug(bench: Bench, judge: Judge, name: str) -> None:
    """Make a bug's case twice in a process of its own; the runtime is not asked."""
    offer, limit_s = bench.registry.bugs[name], bench.settings.limit_s
    command = [sys.executable, "-P", "-c", _MAKE, offer.plugin, name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False, env={**os.environ, **told(None)}
        )
    except subprocess.TimeoutExpired:
        seen = f"no end after {limit_s:g} s"
    else:
        if done.returncode == 0:
            _judged(judge, json.loads(done.stdout), offer.spec.runtime)
            return
        seen = f"its process ended with status {done.returncode}: {done.stderr.strip()[-200:]}"
    judge.expect("runs", False, expected="the case is made in seconds", seen=seen, fix="a small graph, small arrays")


def _judged(judge: Judge, seen: dict[str, Any], runtime: str) -> None:
    if not judge.expect(
        "runs",
        not seen["problem"] and seen["right"] > 0,
        expected="a BugCase that says which outputs are right",
        seen=seen["problem"] or "no right output",
        fix="return BugCase(inputs, right, build, answer) from the function that case names",
    ):
        return
    loaded = sorted(_modules(runtime) & set(seen["modules"]))
    judge.expect(
        "independent",
        seen["same"] and not loaded,
        expected=f"arrays that are made without {runtime}, the same every time",
        seen=f"making them imports {', '.join(loaded)}" if loaded else "others the second time",
        fix="compute what is right in numpy, from a fixed seed; import the runtime inside build and answer",
    )


def _modules(distribution: str) -> set[str]:
    """Return the top-level modules of an installed distribution."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return set()
    code = (PurePath(str(file)) for file in files if file.suffix in {".py", ".so"})
    return {path.parts[0].partition(".")[0] for path in code if not path.parts[0].startswith("..")}
