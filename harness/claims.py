"""What a step was asked for beside what it did, from the counts in a lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.types import Asked, Precision, StepRecord

BY_FAMILY: Mapping[str, frozenset[str]] = {  # what a method of a family changes unless it says otherwise
    "none": frozenset(),
    "pruning": frozenset({"nonzero_parameters"}),
    "decomposition": frozenset({"parameters"}),
    "quantization": frozenset({"precision"}),
    "binarization": frozenset({"precision"}),
    "distillation": frozenset({"weights"}),
}
COUNTED = ("parameters", "nonzero_parameters", "macs")
LESS = "less_than_asked"
LEAST = 0.5  # of what was asked for, below which a step is said to have done less
NOTHING = 0.005  # a smaller share is not told of a step that was not asked for any
NOT_ACTUALLY = "not_actually_"
NO_MODEL = "runs_no_model"  # of cells whose target runs no model: shown as the harness's own cost, never ranked
_DONE = {
    "pruning": "pruned",
    "decomposition": "decomposed",
    "quantization": "quantised",
    "binarization": "binarised",
    "distillation": "distilled",
    "restructuring": "restructured",
}
_WORDS = {"parameters": "parameters", "macs": "MACs"}


def not_actually(family: str) -> str:
    """Return the flag of a step that changed nothing, by the family of its method."""
    return f"{NOT_ACTUALLY}{_DONE.get(family, 'changed')}"


def asked_of(precision: Precision) -> Asked:
    """Say what a method that asks for a precision asks for."""
    if precision.scheme == "weight-only":
        return Asked(f"{precision.weights} weights")
    how = {"static": "calibrated", "dynamic": "found at run time"}.get(precision.scheme)
    return Asked(f"{precision.weights} weights, {precision.activations} activations{f' {how}' if how else ''}")


def removed(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by count the share (0..1) of it that is gone; negative where there is more of it than before."""
    known = [name for name in COUNTED if before.get(name) and name in after]
    return {name: 1.0 - after[name] / before[name] for name in known}


def counts_before(lineage: Sequence[StepRecord]) -> dict[str, float]:
    """Return the last counts of a lineage."""
    return {name: value for step in lineage for name, value in step.effect.items() if name in COUNTED}


def step_flags(family: str, changes: frozenset[str], before: Sequence[StepRecord], step: StepRecord) -> tuple[str, ...]:
    """Return the flags of a step that did nothing, or less than half of what it was asked for.

    Args:
        family: Of the method.
        changes: What the method says that it changes; empty for what its family stands for.
        before: The lineage of the model that it was given.
        step: What it did.
    """
    if family == "none":
        return ()
    gone = removed(counts_before(before), step.effect)
    counted = [gone[name] for name in changes or BY_FAMILY.get(family, frozenset()) if name in gone]
    if step.unchanged or (counted and max(gone.values()) <= 0.0):
        return (not_actually(family),)
    return (LESS,) if fell_short(gone, step.asked) else ()


def meaning(flag: str) -> str:
    """Return what a flag of a step says; empty for others."""
    if flag == LESS:
        return "a step removed less than half of what it was asked for"
    return f"a step left the model not {flag.removeprefix(NOT_ACTUALLY)}" if flag.startswith(NOT_ACTUALLY) else ""


def fell_short(gone: Mapping[str, float], asked: Asked | None) -> bool:
    """Tell whether less than half of the share that was to go is gone."""
    removes = asked.removes if asked is not None else {}
    return any(name in gone and gone[name] < LEAST * share for name, share in removes.items())


def sentences(lineage: Sequence[StepRecord]) -> list[str]:
    """Say of every step what it was asked for, and what it did: in the order in which they ran."""
    return [
        f"{step.name}: asked {step.asked.words}{_told(did(lineage[:at], step))}"
        for at, step in enumerate(lineage)
        if step.asked is not None
    ]


def _told(done: str) -> str:
    return f"; {done}" if done else ""


def did(before: Sequence[StepRecord], step: StepRecord) -> str:
    """Say what a step did, by its counts; empty where it counted nothing."""
    gone = removed(counts_before(before), step.effect)
    zeros = gone.pop("nonzero_parameters", 0.0)
    counts = bool(step.asked and step.asked.removes) or any(abs(share) >= NOTHING for share in gone.values())
    parts = [f"{_percent(share)} of the {_WORDS[name]}" for name, share in gone.items() if counts]
    told = [f"{' and '.join(parts)} removed"] if parts else []
    if zeros > gone.get("parameters", 0.0) and (counts or zeros >= NOTHING):
        told.append(f"{_percent(zeros)} of the weights zero or gone")
    touched = step.effect.get("layers_touched")
    told += [f"{touched:.0f} layers touched"] if touched is not None else []
    return ", ".join(told)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if abs(share) >= 0.01 or share == 0 else f"{100 * share:.1f} %"
