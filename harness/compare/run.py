"""Compare two sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.compare.evidence import Evidence, time_evidence
from harness.compare.judge import Judge, accuracy_change, margin_of, memory_change, size_change, time_changes
from harness.compare.pairs import Meeting, meetings
from harness.compare.rules import Rule, apply
from harness.compare.sides import Side
from harness.compare.software import other_builds
from harness.compare.values import Comparison, Pair, Ruled
from harness.stats.order import LEVEL
from harness.types import SCHEMA, Record

if TYPE_CHECKING:
    from harness.compare.judge import Aggregate

    Aggregates = Callable[[Record], Aggregate | None]


def compare(
    a: Side,
    b: Side,
    *,
    same_recipe: bool = False,
    absolute: bool = False,
    rules: Sequence[Rule] = (),
    aggregates: Aggregates | None = None,
) -> Comparison:
    """Judge B against A, cell by cell, with simultaneous intervals over all compared cells.

    Args:
        a: What was.
        b: What is.
        same_recipe: Pair by the request alone, whatever model came of it.
        absolute: Compare absolute times also where a yardstick is at hand.
        rules: What fails.
        aggregates: Of a record's workload, for metrics that are not 0/1 items.
    """
    met = meetings(a, b, same_recipe=same_recipe)
    usable = [item for item in met if not item.refused]
    evidence = {item.name: _evidence(a, item, b, absolute=absolute) for item in usable}
    known = {name: found for name, found in evidence.items() if found is not None}
    times = time_changes(known, {item.name: (item.a, item.b) for item in usable if item.a and item.b})
    judged = [(item, _judges(a, item, b, times.get(item.name), len(usable), aggregates)) for item in met]
    ruled = tuple(found for rule in rules for found in apply(rule, judged))
    profile = usable[0].a.profile if usable and usable[0].a else "quick"
    return Comparison(
        schema=SCHEMA,
        a=a.text,
        b=b.text,
        mode=_mode(a, b),
        pairing="chosen" if _chosen(a, b) else "same-recipe" if same_recipe else "same-model",
        level=LEVEL,
        margin=margin_of(profile),
        compared=len(usable),
        pairs=tuple(_pair(item, judges, evidence.get(item.name)) for item, judges in judged),
        notes=tuple(_notes(a, b, evidence)),
        problems=tuple(
            f"{side.text}/{problem.file}: {problem.what}" for side in (a, b) for problem in side.run.problems
        ),
        ruled=ruled,
    )


def _evidence(a: Side, item: Meeting, b: Side, *, absolute: bool) -> Evidence | None:
    return time_evidence(a, item.a, b, item.b, absolute=absolute) if item.a and item.b else None


def _judges(
    a: Side, item: Meeting, b: Side, time: Judge | None, cells: int, aggregates: Aggregates | None
) -> Mapping[str, Judge]:
    first, second = item.a, item.b
    if item.refused or first is None or second is None:
        return {}
    aggregate = aggregates(first) if aggregates else None
    found = {
        "latency": time,
        "accuracy": accuracy_change(a, first, b, second, cells, aggregate),
        "memory": memory_change(first, second),
        "size": size_change(first, second),
    }
    return {name: judge for name, judge in found.items() if judge is not None}


def _pair(item: Meeting, judges: Mapping[str, Judge], evidence: Evidence | None) -> Pair:
    notes = list(item.notes)
    if evidence is not None and evidence.drift is not None and not evidence.yardstick:
        drift = math.expm1(evidence.drift)
        if abs(drift) > 0.02:
            notes.append(f"the host itself moved by {drift:+.0%} between the runs, which the anchors take out")
    return Pair(
        name=item.name,
        a_cell=item.a.cell_id if item.a else "",
        b_cell=item.b.cell_id if item.b else "",
        refused=item.refused,
        lost=item.lost,
        changes={name: judge.change for name, judge in judges.items()},
        notes=tuple(notes),
    )


def _chosen(a: Side, b: Side) -> bool:
    return bool(a.method or a.target or b.method or b.target)


def _mode(a: Side, b: Side) -> str:
    where = "on one host" if a.host == b.host else f"on two hosts ({a.host}, {b.host})"
    if _chosen(a, b):
        return f"two selections {where}"
    return f"two runs {where}"


def _notes(a: Side, b: Side, evidence: Mapping[str, Evidence | None]) -> list[str]:
    found: list[str] = []
    if a.run.path.resolve() == b.run.path.resolve() and not _chosen(a, b):
        found.append("A and B are the same run: nothing can differ")
    bases = {item.basis for item in evidence.values() if item is not None}
    if "absolute" in bases:
        found.append(
            "absolute times of two occasions are compared: what the hosts did in between is part of the change"
        )
    if "anchor" in bases:
        found.append(
            "times are taken against the anchor of their own run, so that the host's drift between the two cancels"
        )
    found += other_builds(a.run.info, b.run.info)
    profiles = {record.profile for side in (a, b) for record in side.records}
    if profiles == {"quick"}:
        found.append("quick profile: indicative; 'standard' resolves smaller changes")
    return found


def outcome(found: Comparison, *, unresolved_fails: bool) -> int:
    """Return the exit code: 1 where a rule fails, or is unresolved and that is to count as failing."""
    words = {item.outcome for item in found.ruled}
    return int("fail" in words or (unresolved_fails and "unresolved" in words))


def counts(ruled: Sequence[Ruled]) -> dict[str, int]:
    """Return how many of each outcome there are."""
    return {word: sum(item.outcome == word for item in ruled) for word in ("fail", "pass", "unresolved", "not judged")}
