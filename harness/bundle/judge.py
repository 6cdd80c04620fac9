"""Hold a cell that was measured again against its bundle (MEASUREMENT 5, audits, and 8, reproduction)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.bundle.values import SCHEMA, Check, Outcome, Reproduction, Verdict
from harness.compare.judge import accuracy_change, margin_of
from harness.compare.pairs import same_model
from harness.compare.sides import Side
from harness.leaderboard.digits import plain
from harness.stats.quality import GATE
from harness.stats.ratio import verdict

if TYPE_CHECKING:
    from harness.bundle.read import Opened
    from harness.compare.judge import Aggregate
    from harness.store import Run
    from harness.types import Interval, Record

TOLERANCE = 0.05  # of a ratio or a time, beyond the interval of the bundle
_NOT_HERE = {"unavailable", "not-applicable", "timeout"}  # of these nothing follows about the claim


def judge(opened: Opened, run: Run, *, aggregate: Aggregate | None = None) -> Reproduction:
    """Say whether a run reproduces a bundle.

    Speed is the time ratio to the anchor. It is the same where the new figure lies within the bundle's interval ± 5 %,
    differs where the new interval lies wholly outside, and is undecided else, where noise tears the estimators apart,
    and where the new interval holds 1 that the bundle's excludes. Quality is paired by item: the same where the whole
    interval of the difference lies within what a 99 % gate allows. Absolute times are judged on the same, calm machine
    only, and not where its anchor moved too.

    Args:
        opened: The bundle, verified.
        run: The run that measured again.
        aggregate: Scores to metric, of the cell's workload; 0/1 statistics need none.
    """
    record, same_host = run.by_cell.get(opened.info.cell_id), run.unit == opened.info.unit
    base = Reproduction(
        SCHEMA, opened.path.name, opened.info.cell_id, opened.info.labels, "undecided", "", "", str(run.path), same_host
    )
    stopped = _stopped(opened.record, record)
    if record is None or stopped:
        failed = record is not None and record.status != "ok" and record.status not in _NOT_HERE
        return replace(base, verdict="not reproduced" if failed else "undecided", reason=stopped)
    checks = (
        _artifact(opened.record, record),
        _quality(opened, run, record, aggregate),
        _speed(opened, record),
        _latency(opened, run, record, same_host=same_host),
    )
    word, reason = _verdict(checks)
    notes = tuple(_notes(opened, run, record, same_host=same_host))
    basis = _basis(opened.record, record)
    return replace(base, verdict=word, reason=reason, basis=basis, checks=checks, notes=notes)


def _stopped(packed: Record, here: Record | None) -> str:
    if here is None:
        return "the run has no record of this cell"
    if here.status != "ok" or here.latency is None:
        return f"the cell is {here.status} here: {here.reason or 'no reason given'}"
    if here.profile != packed.profile:
        return f"other profile: {packed.profile} in the bundle, {here.profile} here"
    return ""


def _basis(packed: Record, here: Record) -> str:
    if _hash(packed) == _hash(here):
        return "same artifact"
    return "same model" if same_model(packed, here) else "same recipe"


def _hash(record: Record) -> str:
    return record.artifact.sha256 if record.artifact else ""


def _artifact(packed: Record, here: Record) -> Check:
    basis = _basis(packed, here)
    why = {
        "same artifact": "the same bytes were measured",
        "same model": "the same model was lowered to other bytes here",
        "same recipe": "built again, the recipe gave another model: quality and speed are the recipe's",
    }[basis]
    outcome: Outcome = "same" if basis == "same artifact" else "differs"
    return Check("artifact", outcome, _hash(packed)[:12], _hash(here)[:12], why)


def _quality(opened: Opened, run: Run, here: Record, aggregate: Aggregate | None) -> Check:
    first, second = opened.record.quality, here.quality
    if first is None or first.value is None:
        return Check("quality", "not compared", "none", "none", "the bundle has no quality")
    words = f"{first.metric} {plain(first.value.point, 6)}"
    if second is None or second.value is None:
        return Check("quality", "undecided", words, "none", "the run here has no quality")
    seen = f"{second.metric} {plain(second.value.point, 6)}"
    judged = accuracy_change(Side("bundle", opened.run), opened.record, Side("here", run), here, 1, aggregate)
    if judged is None or judged.change.change.low is None or judged.change.change.high is None:
        why = judged.change.reason if judged else ""
        return Check("quality", "undecided", words, seen, why or "the paired difference carries no interval")
    low, high, unit = judged.change.change.low, judged.change.change.high, judged.change.unit
    allowed = (1 - GATE) * abs(judged.change.a or 0.0)
    span = f"paired difference {plain(low)} to {plain(high)} {unit}"
    if -allowed <= low and high <= allowed:
        exact = low == high == 0.0
        return Check("quality", "same", words, seen, "every item scored the same" if exact else f"{span}, within "
                     f"the {plain(allowed)} that a 99 % gate allows")  # fmt: skip
    if low > 0 or high < 0:
        return Check("quality", "differs", words, seen, f"{span}, which excludes 0")
    return Check("quality", "undecided", words, seen, f"{span} reaches beyond the {plain(allowed)} of a 99 % gate")


def _place(packed: Interval, here: Interval) -> tuple[Outcome, str]:
    """Return where a new figure lies against the interval of the old one, give or take the tolerance."""
    if packed.low is None or packed.high is None or here.low is None or here.high is None:
        return "undecided", "one of the two carries no interval"
    low, high = packed.low / (1 + TOLERANCE), packed.high * (1 + TOLERANCE)
    if here.high < low or high < here.low:
        return "differs", f"the interval here lies outside the bundle's ± {TOLERANCE:.0%}"
    if low <= here.point <= high:
        return "same", f"within the bundle's interval ± {TOLERANCE:.0%}"
    return "undecided", f"the intervals meet, and the figure here lies outside the bundle's interval ± {TOLERANCE:.0%}"


def _speed(opened: Opened, here: Record) -> Check:
    packed, name = opened.record, "speed-up"
    if packed.anchor == packed.cell_id:
        return Check(name, "not compared", "anchor", "anchor", "the cell is what the others are measured by")
    first = packed.latency.ratio if packed.latency else None
    second = here.latency.ratio if here.latency else None
    if first is None:
        return Check(name, "not compared", "none", _ratio(second), "the bundle claims no speed-up")
    words, seen = _ratio(first), _ratio(second)
    if second is None:
        return Check(name, "undecided", words, seen, here.anchor_reason or "there is no anchor here")
    if packed.anchor_precision != here.anchor_precision:
        why = f"its anchor ran in {packed.anchor_precision}, here in {here.anchor_precision}"
        return Check(name, "undecided", words, seen, why)
    outcome, why = _place(first, second)
    doubt = _torn(packed, here) or (_blunt(first, second) if outcome == "same" else "")
    return Check(name, "undecided" if doubt else outcome, words, seen, "; ".join(text for text in (doubt, why) if text))


def _noise(packed: Record, here: Record) -> str:
    """Say where the host was too noisy for times on their own."""
    noisy = [
        where
        for where, record in (("when the bundle was made", packed), ("here", here))
        if record.latency is not None and record.latency.noise == "noisy"
    ]
    return f"the host was noisy {' and '.join(noisy)}" if noisy else ""


def _torn(packed: Record, here: Record) -> str:
    """Say where noise reached the ratio, which is paired by round: medians and p10 of the batches disagree."""
    for where, record in (("the bundle", packed), ("the run here", here)):
        found = record.latency
        if found is not None:
            _word, why = verdict(found.ratio, found.ratio_p10, found.noise, margin_of(record.profile))
            for text in why:
                if text.startswith("estimator_disagree"):
                    return f"noise in {where}: {text}"
    return ""


def _blunt(packed: Interval, here: Interval) -> str:
    """Say where the new interval cannot tell the claim from no change at all."""
    if _holds_one(here) and not _holds_one(packed):
        return "the interval here also holds 1: it cannot tell the claim from no change"
    return ""


def _holds_one(found: Interval) -> bool:
    return found.low is not None and found.high is not None and found.low <= 1 <= found.high


def _ratio(found: Interval | None) -> str:
    """Write a time ratio as a speed-up."""
    if found is None:
        return "none"
    if found.low is None or found.high is None:
        return f"{1 / found.point:.2f}x"
    return f"{1 / found.point:.2f}x ({1 / found.high:.2f} to {1 / found.low:.2f})"


def _milliseconds(found: Interval) -> str:
    ends = (
        "" if found.low is None or found.high is None else f" ({plain(found.low / 1e6)} to {plain(found.high / 1e6)})"
    )
    return f"{plain(found.point / 1e6)} ms{ends}"


def _latency(opened: Opened, run: Run, here: Record, *, same_host: bool) -> Check:
    packed = opened.record
    if packed.latency is None or here.latency is None:
        return Check("latency p50", "undecided", "none", "none", "a latency is missing")
    words, seen = _milliseconds(packed.latency.p50_ns), _milliseconds(here.latency.p50_ns)

    def check(outcome: Outcome, why: str) -> Check:
        return Check("latency p50", outcome, words, seen, why)

    if not same_host:
        return check("not compared", f"another machine: {opened.info.unit} in the bundle, {run.unit} here")
    outcome, why = _place(packed.latency.p50_ns, here.latency.p50_ns)
    doubt, is_anchor = _noise(packed, here), packed.anchor == packed.cell_id
    if is_anchor and outcome != "same":
        return check("undecided", f"an anchor's own change cannot be told from the host's; {why}")
    if doubt:
        return check("undecided" if is_anchor else "not compared", doubt)
    moved = "" if outcome == "same" else _moved(opened, run, here)
    return check("not compared", moved) if moved else check(outcome, why)


def _moved(opened: Opened, run: Run, cell: Record) -> str:
    """Say what the host did between the two, as its anchor tells."""
    packed, here = opened.run.by_cell.get(opened.record.anchor or ""), run.by_cell.get(cell.anchor or "")
    if packed is None or here is None or packed.latency is None or here.latency is None:
        return "there is no anchor that would tell what the host did in between"
    if _place(packed.latency.p50_ns, here.latency.p50_ns)[0] == "same":
        return ""
    share = here.latency.p50_ns.point / packed.latency.p50_ns.point - 1
    return f"the machine itself moved, its anchor by {share:+.0%}; the speed-up takes that out"


def _verdict(checks: Sequence[Check]) -> tuple[Verdict, str]:
    """Combine the checks; that another artifact was measured is told by the basis and decides nothing."""
    claims = [check for check in checks if check.name != "artifact"]
    verdicts: Mapping[Outcome, Verdict] = {"differs": "not reproduced", "undecided": "undecided"}
    for outcome, word in verdicts.items():
        found = [f"{check.name}: {check.reason}" for check in claims if check.outcome == outcome]
        if found:
            return word, "; ".join(found)
    timed = [check for check in claims if check.name != "quality" and check.outcome == "same"]
    if not timed:
        return "undecided", "nothing here says how fast the cell is: " + "; ".join(
            check.reason for check in claims if check.name != "quality"
        )
    return "reproduced", "; ".join(f"{check.name}: {check.reason}" for check in claims if check.outcome == "same")


_FACTS = ("cpu_model_name", "gpu_name", "kernel")


def _said(name: str, packed: str, here: str) -> str:
    return f"{name}: {packed or 'not known'} in the bundle, {here or 'not known'} here"


def _notes(opened: Opened, run: Run, here: Record, *, same_host: bool) -> Iterator[str]:
    before, now = opened.run.info, run.info
    if before is None or now is None:
        return
    if not same_host:
        yield _said("machine", opened.info.unit, run.unit)
        for name in _FACTS:
            a, b = before.host_facts.get(name, ""), now.host_facts.get(name, "")
            if a != b:
                yield _said(name, a, b)
    elif opened.record.host_id != here.host_id:
        yield "the machine's facts changed since the bundle was made (its host_id is another)"
    runtimes = opened.record.provenance.get("runtime", ""), here.provenance.get("runtime", "")
    if runtimes[0] != runtimes[1]:
        yield _said("runtime", *runtimes)
    if before.harness_version != now.harness_version:
        yield _said("harness", before.harness_version, now.harness_version)
    other = sorted(
        name for name in {*before.packages, *now.packages} if before.packages.get(name) != now.packages.get(name)
    )
    if other:
        yield f"{len(other)} packages of other versions: {', '.join(other[:12])}" + (" ..." if len(other) > 12 else "")
    if opened.info.redacted:
        yield f"paths of the machine were taken out of {', '.join(opened.info.redacted)} of the bundle"
    yield from (f"the bundle breaks a demand of harness verify: {text}" for text in opened.info.breaks)
    if here.flags != opened.record.flags:
        yield f"flags: {', '.join(opened.record.flags) or 'none'} in the bundle, {', '.join(here.flags) or 'none'} here"
