"""Live lines whose truth is exact: times, ratios, sleeping, memory and outputs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from harness.measure import measure_memory, run_untimed
from harness.profiles import PROFILES
from harness.selftest.lab import Lab, judge, launches, line, samples
from harness.selftest.values import Line
from harness.stats import mcnemar_exact, paired_ratio, summarise
from harness.stats.ranks import certainly_less, rank_sets
from harness.stats.ratio import MARGINS, batch_median, set_log_ratio
from harness.stats.ratio import verdict as verdict_of
from harness.types import Failure, LaunchSet, Memory

MIB = 2**20
SETS = 10
POWER_SETS = 15
STEPS = {"+5 %": 1.05, "+2 %": 1.02, "+0.5 %": 1.005}
COPIES = 10  # of one target in an A/A set; its pairs are disjoint
AA_SETS = 6


def known_times(lab: Lab) -> Iterator[Line]:
    """Spin, sleep and work in one panel of launch-sets: known latency, known ratio, known work, the sleep trap."""
    disturbed = lab.calm()
    panel = [
        lab.member("spin5", "spin", ms=5.0),
        lab.member("spin10", "spin", ms=10.0),
        lab.member("sleep5", "sleep", ms=5.0),
        lab.member("work", "work", blocks=40),
        lab.member("work2", "work", blocks=80),
        lab.member("transfer", "spin", ms=5.0, transfer_ms=1.0),
        lab.member("slow", "slow-load", ms=1.0, load_ms=200.0, first_ms=50.0),
    ]
    sets = lab.sets("known", panel, lab.trials(6, SETS))
    yield _latency(sets, disturbed)
    yield _ratio("known ratio: 10 ms over 5 ms", sets, "spin10", "spin5", 2.0, disturbed)
    yield _ratio("known work: twice the work", sets, "work2", "work", 2.0, disturbed)
    yield _sleep(sets, disturbed)
    yield _kinds(sets, disturbed)


def _latency(sets: Sequence[LaunchSet], disturbed: str) -> Line:
    """The truth is exact and does not depend on the CPU's speed."""
    found = summarise("spin5", "spin5", sets, PROFILES["quick"])
    median, p99 = found.p50_ns.point / 1e6, float(np.quantile(samples(sets, "spin5"), 0.99)) / 1e6
    ok = abs(median / 5 - 1) <= 0.005 and p99 <= 5.25
    seen = f"5 ms spun reads {median:.4f} ms (within 0.5 %), p99 {p99:.3f} ms (up to 5.25)"
    figures = {"median_ms": median, "p99_ms": p99}
    return line("known latency", judge(ok, seen, disturbed=disturbed, sets=sets), figures, sets)


def _ratio(name: str, sets: Sequence[LaunchSet], cell: str, anchor: str, truth: float, disturbed: str) -> Line:
    found, _low = paired_ratio(sets, cell, anchor)
    holds = found.low is not None and found.high is not None and found.low - 0.002 <= truth <= found.high + 0.002
    ok = holds and abs(found.point / truth - 1) <= 0.02
    bounds = "no interval" if found.low is None or found.high is None else f"{found.low:.4f} to {found.high:.4f}"
    seen = f"{truth:g} reads {found.point:.4f} ({bounds})"
    return line(name, judge(ok, seen, disturbed=disturbed, sets=sets), {"ratio": found.point}, sets)


def _sleep(sets: Sequence[LaunchSet], disturbed: str) -> Line:
    """A plugin that waits instead of computing has to be caught."""
    own = launches(sets, "sleep5")
    caught = sum(any("cpu/wall" in reason for reason in launch.noise.reasons) for launch in own)
    median = statistics.median(samples(sets, "sleep5")) / 1e6
    ok = caught == len(own) and median >= 5.0
    seen = f"5 ms slept reads {median:.3f} ms (at least 5); cpu/wall caught {caught} of {len(own)} launches"
    return line("sleep trap", judge(ok, seen, disturbed="" if caught < len(own) else disturbed, sets=()), {}, sets)


def _kinds(sets: Sequence[LaunchSet], disturbed: str) -> Line:
    """End-to-end, compute-only and time to first inference are kept apart."""
    found, slow = (summarise(name, name, sets, PROFILES["quick"]) for name in ("transfer", "slow"))
    whole = found.p50_ns.point / 1e6
    bound = found.compute_ns.point / 1e6 if found.compute_ns else math.nan
    load, first = (slow.load_ns or 0) / 1e6, (slow.start_ns or 0) / 1e6
    ok = abs(whole / 6 - 1) <= 0.005 and abs(bound / 5 - 1) <= 0.005 and 200 <= load <= 260 and 51 <= first <= 60
    seen = (
        f"5 + 1 ms end to end reads {whole:.3f} ms, bound {bound:.3f} ms; loading 200 ms reads {load:.0f} ms, "
        f"a first inference of 51 ms reads {first:.1f} ms"
    )
    figures = {"e2e_ms": whole, "compute_ms": bound, "load_ms": load, "first_ms": first}
    return line("kinds of latency", judge(ok, seen, disturbed=disturbed, sets=sets), figures, sets)


def same_things(lab: Lab) -> Iterator[Line]:
    """A/A: copies of one target compared in disjoint pairs, and ranked."""
    disturbed = lab.calm()
    series = lab.trials(1, 20)
    hits, logs, wrong, every = 0, [], 0, []
    for number in range(series):
        copies = [lab.member(f"copy{place:02}", "spin", ms=1.0) for place in range(2 * COPIES if lab.full else COPIES)]
        sets = lab.sets(f"aa-{number:02}", copies, AA_SETS)
        every += sets
        names = [copy.cell_id for copy in copies]
        for first, second in zip(names[::2], names[1::2], strict=True):
            ratio, _low = paired_ratio(sets, first, second)
            hits += ratio.low is not None and ratio.high is not None and not ratio.low <= 1 <= ratio.high
            logs.append(abs(math.log(ratio.point)))
        for start in range(0, len(names), COPIES):
            wrong += not _all_places(sets, names[start : start + COPIES])
    pairs, ranked, middle = len(logs), series * (2 if lab.full else 1), statistics.median(logs)
    allowed = most_by_chance(pairs)
    seen = f"{hits} of {pairs} pairs differ (up to {allowed}); median |log ratio| {middle:.2%} (up to 1 %)"
    figures = {"pairs": pairs, "significant": hits, "median_abs_log_ratio": middle}
    verdict = judge(hits <= allowed and middle <= 0.01, seen, disturbed=disturbed, sets=every)
    yield line("A/A", verdict, figures, every)
    seen = f"in {wrong} of {ranked} rankings of {COPIES} copies one was placed (up to {most_by_chance(ranked)})"
    verdict = judge(wrong <= most_by_chance(ranked), seen, disturbed=disturbed, sets=every)
    yield line("A/A ranking", verdict, {"rankings": ranked, "wrong": wrong}, every)


def _all_places(sets: Sequence[LaunchSet], names: Sequence[str]) -> bool:
    rows = [[set_log_ratio(item, name, names[0], batch_median) for name in names] for item in sets]
    values = np.array([[math.nan if value is None else value for value in row] for row in rows])
    return all(place == (1, len(names)) for place in rank_sets(certainly_less(values)))


def most_by_chance(trials: int, rate: float = 0.05) -> int:
    """Return the most hits that a true rate gives in 95 of 100 runs of ``trials``."""
    from scipy.stats import binom

    return int(binom.ppf(0.95, trials, rate))


def least_by_chance(trials: int, rate: float) -> int:
    """Return the fewest hits that a true rate gives in 95 of 100 runs of ``trials``."""
    from scipy.stats import binom

    return int(binom.ppf(0.05, trials, rate))


def power(lab: Lab) -> Iterator[Line]:
    """A small difference is resolved as often as the protocol promises, and a tiny one is not claimed.

    Resolved means that the interval excludes 1. A spin is exact, so that on a calm host it excludes 1 for half a
    percent too, and rightly; what must not happen is that a board calls half a percent slower.
    """
    disturbed, trials = lab.calm(), lab.trials(2, 50)
    at_once = 1 if not lab.full else 5  # trials that share a set; each has an anchor of its own
    found: dict[str, list[tuple[bool, bool]]] = {name: [] for name in STEPS}
    called = 0
    every: list[LaunchSet] = []
    for number in range(trials // at_once):
        members = [
            lab.member(f"t{trial}{name}", "spin", ms=2.0 * factor)
            for trial, (name, factor) in itertools.product(range(at_once), [("anchor", 1.0), *STEPS.items()])
        ]
        sets = lab.sets(f"power-{number:02}", members, POWER_SETS if lab.full else SETS)
        every += sets
        for trial, name in itertools.product(range(at_once), STEPS):
            ten, whole = (_slower(part, f"t{trial}{name}", f"t{trial}anchor") for part in (sets[:SETS], sets))
            found[name].append((ten, whole))
            called += name == "+0.5 %" and _called_slower(sets, f"t{trial}{name}", f"t{trial}anchor")
    hits = {name: sum(pair[0 if name == "+5 %" else 1] for pair in pairs) for name, pairs in found.items()}
    bounds = {"+5 %": least_by_chance(trials, 0.95), "+2 %": least_by_chance(trials, 0.70)}
    for name, bound in bounds.items():
        seen = f"resolved as slower in {hits[name]} of {trials} trials (at least {bound})"
        verdict = judge(hits[name] >= bound, seen, disturbed=disturbed, sets=every)
        yield line(f"{name} is resolved", verdict, {"trials": trials, "resolved": hits[name]}, every)
    most = most_by_chance(trials, 0.15)
    seen = f"called slower in {called} of {trials} trials (up to {most}), resolved in {hits['+0.5 %']}"
    verdict = judge(called <= most, seen, disturbed=disturbed, sets=every)
    figures = {"trials": trials, "called": called, "resolved": hits["+0.5 %"]}
    yield line("+0.5 % is not claimed", verdict, figures, every)


def _slower(sets: Sequence[LaunchSet], cell: str, anchor: str) -> bool:
    ratio, _low = paired_ratio(sets, cell, anchor)
    return ratio.low is not None and ratio.low > 1


def _called_slower(sets: Sequence[LaunchSet], cell: str, anchor: str) -> bool:
    """Say whether a published board would call the cell slower."""
    word, _why = verdict_of(*paired_ratio(sets, cell, anchor), "ok", MARGINS["publish"])
    return word == "slower"


def memory(lab: Lab) -> Iterator[Line]:
    """256 MiB of each kind, to a mebibyte and in the right class."""
    kinds: dict[str, dict[str, int]] = {"none": {}, "anon": {"anon_mib": 256}, "mapped": {"file_mib": 256}}
    readings = {
        name: measure_memory(lab.member(name, "hoard", **given), PROFILES["quick"], timeout_s=120)
        for name, given in kinds.items()
    }
    failed = [found.reason for found in readings.values() if isinstance(found, Failure)]
    if failed:
        yield line("known memory", ("not-evaluable", failed[0]))
        return
    none, anon, mapped = (found for found in readings.values() if isinstance(found, Memory))
    if none.anon_bytes is None:
        yield line("known memory", ("not-evaluable", none.unavailable.get("steady_uss_bytes", "no split is told")))
        return
    figures = {
        "peak_anon_mib": (anon.load_peak_bytes - none.load_peak_bytes) / MIB,
        "peak_mapped_mib": (mapped.load_peak_bytes - none.load_peak_bytes) / MIB,
        "anon_mib": ((anon.anon_bytes or 0) - none.anon_bytes) / MIB,
        "mapped_mib": ((mapped.file_mapped_bytes or 0) - (none.file_mapped_bytes or 0)) / MIB,
    }
    ok = all(abs(value - 256) <= 1 for value in figures.values())
    seen = "256 MiB reads " + ", ".join(f"{name.removesuffix('_mib')} {value:.2f}" for name, value in figures.items())
    yield line("known memory", ("pass" if ok else "fail", seen), figures)


def flips(lab: Lab) -> Iterator[Line]:
    """Planted flips: agreement is exactly 1 - k/n, and McNemar's p as computed by hand."""
    planted, item_count = 7, 64
    outputs = []
    for name, count in (("echo0", 0), ("echo7", planted)):
        member = lab.member(name, "echo", flips=count)
        found = run_untimed(
            member, purposes={"accuracy"}, batch=16, items=None, outputs_to=lab.folder / "outputs" / name, timeout_s=60
        )
        if isinstance(found, Failure):
            yield line("planted flips", ("fail", found.reason))
            return
        outputs.append(np.load(found.outputs["y"]).argmax(1))
    labels = outputs[0]
    right = [values == labels for values in outputs]
    changed = int((outputs[0] != outputs[1]).sum())
    lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    p_value, by_hand = mcnemar_exact(lost, gained), 2 * 0.5**planted  # all seven lost: two tails of (1/2)^7
    ok = changed == planted and len(labels) == item_count and math.isclose(p_value, by_hand)
    seen = f"{planted} planted, {changed} found in {len(labels)} items; McNemar p {p_value:.5f}, by hand {by_hand:.5f}"
    yield line("planted flips", ("pass" if ok else "fail", seen), {"flips": changed, "p_value": p_value})
