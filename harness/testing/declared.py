"""Checks of what a spec declares; no plugin function is called."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from harness import codec, params
from harness.errors import HarnessError
from harness.testing.results import Judge
from harness.types import Capabilities

if TYPE_CHECKING:
    from harness.plugins import PluginInfo, Registry
    from harness.specs import Offer

HEAVY = frozenset(
    {
        "PIL",
        "ai_edge_litert",
        "ai_edge_quantizer",
        "cv2",
        "executorch",
        "jax",
        "keras",
        "litert_torch",
        "matplotlib",
        "mxnet",
        "ncnn",
        "nncf",
        "onnx",
        "onnxruntime",
        "openvino",
        "paddle",
        "pandas",
        "scipy",
        "sklearn",
        "tensorflow",
        "tensorrt",
        "timm",
        "tinygrad",
        "torch",
        "torch_pruning",
        "torchvision",
        "transformers",
        "tvm",
    }
)
MOST_MODULES = 300  # of a plugin's own import; numpy alone is about 120
SUMMARY_CHARS = 120
NEEDS = frozenset({"training", "calibration", "selection", "torch-model"})
CHANGES = frozenset({"parameters", "nonzero_parameters", "macs", "precision", "weights", "parts"})
OPTIONS = frozenset({"batch", "threads", "scenario"})
_LOAD = """
import sys
from harness.plugins import load_registry
import harness.api
before = set(sys.modules)
load_registry(only={sys.argv[1]})
print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.__stdout__)
"""


def judge_plugin(info: PluginInfo, registry: Registry) -> Judge:
    """Check what holds for a plugin as a whole."""
    judge = Judge(f"plugin {info.name!r}")
    told = "; ".join(
        p.message for p in registry.problems if (p.plugin, p.distribution) == (info.name, info.distribution)
    )
    if not judge.expect(
        "loads",
        info.state == "loaded" and not told,
        expected="every offer is taken",
        seen=told or info.message or info.state,
        fix="mend what the message names; 'harness plugins' shows it too",
    ):
        return judge
    _imports(judge, info)
    _documented(judge, info)
    return judge


def _imports(judge: Judge, info: PluginInfo) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOAD, info.name], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        judge.skip("imports", f"the interpreter ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
        return
    loaded = done.stdout.split()
    heavy = sorted(HEAVY & {name.partition(".")[0] for name in loaded})
    many = len(loaded) > MOST_MODULES
    judge.expect(
        "imports",
        not heavy and not many,
        expected="listing plugins loads no framework",
        seen=f"importing {info.module} loads {', '.join(heavy) or f'{len(loaded)} modules'}",
        fix="import it inside the function that uses it",
    )


def _documented(judge: Judge, info: PluginInfo) -> None:
    module = sys.modules.get(info.module)
    judge.expect(
        "docs",
        bool((getattr(module, "__doc__", "") or "").strip()),
        expected="a module docstring",
        seen="none",
        fix=f"say in the first line of {info.module} what the plugin offers",
    )
    try:
        summary = metadata.metadata(info.distribution).json.get("summary")
    except metadata.PackageNotFoundError:
        summary = None
    judge.expect(
        "docs",
        bool(summary),
        expected="the distribution has a description",
        seen="none",
        fix="set description in the [project] table of pyproject.toml",
    )


def judge_offer(judge: Judge, kind: str, offer: Offer[Any]) -> None:
    """Check one offer's declarations."""
    spec = offer.spec
    _naming(judge, spec)
    _summary(judge, spec)
    if getattr(spec, "params", None) is not None:
        _params(judge, spec)
    _words(judge, kind, spec)


def _naming(judge: Judge, spec: Any) -> None:
    judge.expect(
        "naming",
        bool(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", spec.name)),
        expected="kebab-case, such as 'low-rank'",
        seen=repr(spec.name),
        fix="rename it: lower case, words joined by '-'",
    )
    for info in params.describe(spec.params) if getattr(spec, "params", None) else ():
        judge.expect(
            "naming",
            bool(re.fullmatch(r"[A-Za-z][a-z0-9_]*", info.name)),
            expected="snake_case parameters",
            seen=repr(info.name),
            fix="rename the parameter: lower case, words joined by '_'",
        )


def _summary(judge: Judge, spec: Any) -> None:
    text = spec.summary
    fine = text.strip() == text != "" and "\n" not in text and not text.endswith(".") and len(text) <= SUMMARY_CHARS
    judge.expect(
        "docs",
        fine,
        expected=f"a summary of one line, at most {SUMMARY_CHARS} characters, without a full stop",
        seen=repr(text),
        fix="say what it does in a phrase; it stands in listings",
    )
    for info in params.describe(spec.params) if getattr(spec, "params", None) else ():
        judge.expect(
            "docs",
            bool(info.help),
            expected=f"parameter {info.name!r} has a line of help",
            seen="none",
            fix=f"{info.name}: … = param(default, 'what it does', ge=…)",
        )


def _params(judge: Judge, spec: Any) -> None:
    fix = "give each field a type of bool, int, float, str (or None beside it) and a default inside its range"
    try:
        default = spec.params()
        again = params.build(spec.params, codec.loads(dict, codec.dumps(dataclasses.asdict(default))), owner=spec.name)
        texts = {key: str(value) for key, value in dataclasses.asdict(default).items()}
        read = params.build(spec.params, texts, owner=spec.name)
    except HarnessError as error:
        judge.expect("params", False, expected="the defaults are valid", seen=error.message, fix=fix)
        return
    except Exception as error:  # noqa: BLE001  a dataclass of a plugin may do anything
        seen = f"{type(error).__name__}: {error}"
        judge.expect("params", False, expected="the parameters can be made without arguments", seen=seen, fix=fix)
        return
    judge.expect(
        "params",
        default == again == read,
        expected=f"{default} comes back from JSON and from text",
        seen=f"{again} and {read}",
        fix=fix,
    )
    for bad in _beyond(spec.params):
        try:
            params.build(spec.params, bad, owner=spec.name)
        except HarnessError:
            continue
        judge.expect(
            "params", False, expected=f"{bad} is refused", seen="it is taken", fix="leave the range to param()"
        )


def _beyond(kind: type) -> list[dict[str, Any]]:
    """Return values just outside the ranges."""
    found: list[dict[str, Any]] = []
    for item in dataclasses.fields(kind):
        limits = item.metadata.get("harness")
        if limits is None:
            continue
        found += [{item.name: value} for value in (limits.gt, limits.lt) if value is not None]
        found += [{item.name: limits.ge - 1}] if limits.ge is not None else []
        found += [{item.name: limits.le + 1}] if limits.le is not None else []
        found += [{item.name: "no such choice"}] if limits.choices else []
    return found


def _words(judge: Judge, kind: str, spec: Any) -> None:
    fields = frozenset(item.name for item in dataclasses.fields(Capabilities))
    options = {"target": ("lower_reads", OPTIONS), "exporter": ("reads", OPTIONS)}
    wanted = (
        [("reads", fields), ("changes", CHANGES)] if kind == "method" else [options[kind]] if kind in options else []
    )
    if kind == "method" and not callable(spec.needs):
        wanted.append(("needs", NEEDS))
    for name, known in wanted:
        odd = sorted(getattr(spec, name) - known)
        judge.expect(
            "declarations",
            not odd,
            expected=f"{name} takes {', '.join(sorted(known))}",
            seen=", ".join(odd),
            fix=f"correct the word in {name}",
        )
    if kind == "bug":
        judge.expect(
            "declarations",
            re.match(r"https?://[^\s/]+/", spec.url) is not None and ":" in spec.case,
            expected="the address of a public report, and a case of the form package.module:function",
            seen=f"{spec.url!r}, {spec.case!r}",
            fix="url='https://…/issues/123', case='harness_mine.cases:wrong_sum'",
        )
    if kind == "target":
        judge.expect(
            "declarations",
            bool(spec.accepts),
            expected="accepts names a format",
            seen="nothing",
            fix="accepts=frozenset({'onnx'}), or the format of your own exporter",
        )
    if kind == "exporter":
        judge.expect(
            "declarations",
            spec.consumes != spec.produces,
            expected="an exporter changes the format",
            seen=f"{spec.consumes} to {spec.produces}",
            fix="a step that keeps the format is a method",
        )
