"""Which cells of A meet which of B, and why some may not be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.compare.sides import Side, differences, label, pair_key
from harness.explain import sentence_of
from harness.types import Record


@dataclass(frozen=True)
class Meeting:
    """One cell on both sides, or on one.

    Attributes:
        refused: Why the two are not compared.
        notes: What to know where they are.
    """

    a: Record | None
    b: Record | None
    refused: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The cell in words; both methods or targets where they differ."""
        record = self.a or self.b
        if record is None:
            return ""
        options = record.cell.options
        words = [self._label("workload"), self._label("method"), "on", self._label("target")]
        return " ".join([*words, f"· {options.threads} thr · batch {options.batch}"])

    def _label(self, name: str) -> str:
        found = [label(record, name) for record in (self.a, self.b) if record is not None]
        return " → ".join(dict.fromkeys(found))

    @property
    def lost(self) -> bool:
        """B has no figures for a cell that A has figures for."""
        return self.a is not None and self.a.status == "ok" and (self.b is None or self.b.status != "ok")


def meetings(a: Side, b: Side, *, same_recipe: bool) -> list[Meeting]:
    """Pair the records of two sides; those that stay alone are met by name, and refused with what differs."""
    chosen = {"method": bool(a.method or b.method), "target": bool(a.target or b.target)}
    mine = {pair_key(record, **chosen): record for record in a.records}
    theirs = {pair_key(record, **chosen): record for record in b.records}
    both = [key for key in mine if key in theirs]
    found = [_met(a, mine[key], b, theirs[key], same_recipe=same_recipe, chosen=any(chosen.values())) for key in both]
    left = [record for key, record in mine.items() if key not in theirs]
    right = [record for key, record in theirs.items() if key not in mine]
    found += list(_alone(a, left, b, right))
    return sorted(found, key=lambda item: item.name)


def _alone(a: Side, left: Sequence[Record], b: Side, right: Sequence[Record]) -> Iterator[Meeting]:
    taken: set[str] = set()
    for record in left:
        match = next((item for item in right if _names(item) == _names(record) and item.cell_id not in taken), None)
        if match is None:
            yield Meeting(record, None, f"only in {a.text}")
        else:
            taken.add(match.cell_id)
            yield Meeting(record, match, f"other options: {differences(record, match)}")
    yield from (Meeting(None, item, f"only in {b.text}") for item in right if item.cell_id not in taken)


def _names(record: Record) -> tuple[str, ...]:
    return tuple(label(record, name).partition(":")[0] for name in ("workload", "method", "target"))


def _met(a: Side, first: Record, b: Side, second: Record, *, same_recipe: bool, chosen: bool) -> Meeting:
    notes: list[str] = []
    refused = _no_figures(a, first, b, second) or _unlike(first, second)
    if not refused and chosen:
        refused = _reference(a, first, b, second)
    elif not refused:
        same = same_model(first, second)
        if same is not True and not same_recipe:
            refused = _other_model(first, second)
        elif same is not True:
            notes.append("same recipe, other model" if same is False else "same recipe, model not known")
    if not refused:
        notes += _notes(first, second)
    return Meeting(first, second, refused, tuple(notes))


def same_model(first: Record, second: Record) -> bool | None:
    """Tell whether two records ran one model; ``None`` where an old record does not say.

    The model is what was lowered. Records without its hash stand by their artifact: equal artifacts hold one model,
    while other ones may be another host's lowering of it.
    """
    if first.artifact and second.artifact and first.artifact.sha256 == second.artifact.sha256:
        return True
    if first.model_sha256 is None or second.model_sha256 is None:
        return None
    return first.model_sha256 == second.model_sha256


def _other_model(first: Record, second: Record) -> str:
    mine, theirs = (record.model_sha256 or "not recorded" for record in (first, second))
    if mine == "not recorded" or theirs == "not recorded":
        what = "the artifacts differ and the model's hash is not recorded"
    else:
        what = f"other model: {mine[:8]} against {theirs[:8]}"
    return f"{what}; --same-recipe compares the recipes, 'harness pack' carries one model to every host"


def _no_figures(a: Side, first: Record, b: Side, second: Record) -> str:
    """Say which sides have no figures and why: once, where both have one reason."""
    sides: dict[tuple[str, str], list[str]] = {}
    for side, record in ((a, first), (b, second)):
        if record.status != "ok" or record.latency is None:
            sides.setdefault((record.status, sentence_of(record.reason or "no reason given")), []).append(side.text)
    return "; ".join(f"{status} in {' and '.join(names)}: {why}" for (status, why), names in sides.items())


def _unlike(first: Record, second: Record) -> str:
    if first.profile != second.profile:
        return f"other profile: {first.profile} against {second.profile}"
    if first.kind != second.kind:
        return f"other kind: {first.kind} against {second.kind}"
    return ""


def _reference(a: Side, first: Record, b: Side, second: Record) -> str:
    """Two methods are compared on one reference: its training is the first step of both lineages."""
    if a.run.path.resolve() == b.run.path.resolve():
        return ""
    mine, theirs = (side.run.by_cell.get(item.anchor or "") for side, item in ((a, first), (b, second)))
    if mine is None or theirs is None:
        return "one side has no anchor that would show that both start from one model"
    same = same_model(mine, theirs)
    return "" if same else "the two start from other models: their anchors differ"


def _notes(first: Record, second: Record) -> list[str]:
    found: list[str] = []
    mine, theirs = first.provenance.get("runtime", ""), second.provenance.get("runtime", "")
    if mine != theirs and first.cell.target == second.cell.target:
        found.append(f"runtime {mine} against {theirs}")
    changed = sorted(
        name
        for name in {*first.effective, *second.effective}
        if first.cell.target == second.cell.target and first.effective.get(name) != second.effective.get(name)
    )
    if changed:
        found.append(f"effective options differ: {', '.join(changed)}")
    words = [record.latency.noise for record in (first, second) if record.latency]
    if any(word != "ok" for word in words):
        found.append(f"noise: {' and '.join(words)}")
    return found
