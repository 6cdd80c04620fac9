"""What plugins may offer, by hook, and what an offer must hold to be used."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness import params
from harness.inspection import InspectorSpec
from harness.runtime_bugs import RuntimeBug
from harness.specs import ExporterSpec, MethodSpec, OracleSpec, TargetSpec, WorkloadSpec

_CALLS = (
    "compress", "export", "probe", "capabilities", "lower", "open", "fit", "split", "inputs", "inspect",
)  # fmt: skip  # fields of specs
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
KINDS: Mapping[str, tuple[str, type]] = {
    "harness_workloads": ("workload", WorkloadSpec),
    "harness_methods": ("method", MethodSpec),
    "harness_exporters": ("exporter", ExporterSpec),
    "harness_oracles": ("oracle", OracleSpec),
    "harness_targets": ("target", TargetSpec),
    "harness_inspectors": ("inspector", InspectorSpec),
    "harness_runtime_bugs": ("bug", RuntimeBug),
}


def wrong_with(spec: object, kind: type, hook: str) -> str | None:
    """Say why an offer cannot be used, or return None."""
    if not isinstance(spec, kind):
        return f"{hook} offers {type(spec).__name__} where {kind.__name__} is due"
    name = getattr(spec, "name", "")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name):
        return f"{hook} offers the name {name!r}; letters, digits, '-', '_' and '.' are allowed"
    for key, value in vars(spec).items():
        if isinstance(value, str) and _UNPRINTABLE.search(value):
            return f"{kind.__name__} {name!r}: {key} holds control characters"
        if key in _CALLS and not callable(value):
            return f"{kind.__name__} {name!r}: {key} is not callable"
    patterns = getattr(spec, "environment", ())
    if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
        return f"{kind.__name__} {name!r}: environment is not a tuple of names"
    declared = getattr(spec, "params", None)
    if declared is not None:
        wrong = params.problem(declared)
        if wrong:
            return f"{kind.__name__} {name!r}: {wrong}"
    return None
