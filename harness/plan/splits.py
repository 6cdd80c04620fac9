"""Items that a method cannot do without: what a workload's data must hold for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.params import build
from harness.specs import MethodSpec

# What a method may need -> the split that it takes it from, and whether with labels.
_SPLITS: Mapping[str, tuple[str, bool]] = {
    "training": ("train", True),
    "calibration": ("calibration", False),
    "selection": ("selection", True),
}


class Counted(Protocol):
    """What is known of a split."""

    @property
    def items(self) -> int:
        """Number of items."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether they have labels."""
        ...

    @property
    def absent(self) -> str:
        """Why there is no such split; empty where there is one."""
        ...


def needs_of(spec: MethodSpec[Any], given: Mapping[str, Any]) -> frozenset[str]:
    """Return what a method needs with these parameters, such as "training"; see ``MethodSpec.needs``."""
    needs = spec.needs
    return needs(build(spec.params, given, owner=f"method {spec.name!r}")) if callable(needs) else needs


def lacking(
    spec: MethodSpec[Any], given: Mapping[str, Any], workload: str, splits: Mapping[str, Counted]
) -> str | None:
    """Say in a sentence which items a method needs that the data do not hold, or return None.

    Args:
        spec: The method.
        given: Its parameters.
        workload: Name, for the sentence.
        splits: By name; of one that is not among them nothing is known.
    """
    needs = needs_of(spec, given)
    for need, (name, labels) in _SPLITS.items():
        found = splits.get(name)
        if need not in needs or found is None:
            continue
        if not found.items:
            why = found.absent or f"the {name} split of workload {workload!r} is empty"
            return f"method {spec.name!r} needs {name} items, and there are none: {why}"
        if labels and not found.labelled:
            return f"method {spec.name!r} needs labels, and the {name} split of workload {workload!r} has none"
    return None
