"""Lines on raw data of known truth: they run anywhere, and cannot be excused by the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.measure.clean import Usual
from harness.measure.counters import Disturbance
from harness.measure.noise import Probe, assess
from harness.measure.order import generator, schedule
from harness.profiles import PROFILES
from harness.selftest.known import least_by_chance, most_by_chance
from harness.selftest.values import Line
from harness.stats import median_interval, paired_ratio, summarise
from harness.stats.ranks import certainly_less, rank_sets
from harness.types import REPLICATION, SCHEMA, Batch, Launch, LaunchSet, Noise

_QUIET = Noise(1.0, 0.0, 0.0, 100.0, 100.0, 1.0, 0.0, 0.0, 0, 0, "ok")
LAUNCH, WITHIN, CORRELATION, DRIFT, SPIKES = 0.012, 0.03, 0.42, 0.05, 0.03  # MEASUREMENT.md sections 1.2 and 9
ROUNDS, PER_BATCH = 6, 10


def simulate(truth: Mapping[str, float], sets: int, chance: np.random.Generator) -> list[LaunchSet]:
    """Return raw launch-sets of cells whose true times are known, in ns.

    Log-normal launch effects, AR(1) iterations, a drift that all members of a set share, and rare long spikes.
    """
    return [_set(truth, number, chance) for number in range(sets)]


def _set(truth: Mapping[str, float], number: int, chance: np.random.Generator) -> LaunchSet:
    drift = chance.normal(0, DRIFT) + np.linspace(0, chance.normal(0, 0.01), ROUNDS * PER_BATCH)
    launches = tuple(_launch(name, ns, number, drift, chance) for name, ns in truth.items())
    return LaunchSet(SCHEMA, "s", number * REPLICATION, "variants", next(iter(truth)), tuple(truth), "", 1.0, launches)


def _launch(name: str, ns: float, number: int, drift: np.ndarray, chance: np.random.Generator) -> Launch:
    error = np.empty(ROUNDS * PER_BATCH)
    last = 0.0
    for place, shock in enumerate(chance.normal(0, WITHIN, len(error))):
        last = CORRELATION * last + shock
        error[place] = last
    spikes = 1 + (chance.random(len(error)) < SPIKES) * chance.exponential(1.0, len(error))
    series = (ns * np.exp(chance.normal(0, LAUNCH) + drift + error) * spikes).astype(int)
    batches = tuple(_batch(place, values.tolist()) for place, values in enumerate(series.reshape(ROUNDS, PER_BATCH)))
    return Launch(name, number, 0, 1, 1, 1, 10, 1, True, 1, (0,), "1", batches, _QUIET)


def _batch(number: int, ns: Sequence[int]) -> Batch:
    return Batch(number, 0, tuple(ns), sum(ns), sum(ns), 0, 0, 0)


def _line(name: str, ok: bool, seen: str, **figures: float) -> Line:
    return Line(name, "simulated", "pass" if ok else "fail", seen, figures)


def same_things() -> Iterator[Line]:
    """A/A over 200 pairs, and 10 copies ranked."""
    chance, pairs = np.random.default_rng(1), 200
    hits = 0
    for _ in range(pairs):
        ratio, _low = paired_ratio(simulate({"a": 1e6, "b": 1e6}, 10, chance), "b", "a")
        hits += ratio.low is not None and ratio.high is not None and not ratio.low <= 1 <= ratio.high
    most = most_by_chance(pairs)
    yield _line("A/A", hits <= most, f"{hits} of {pairs} pairs differ (up to {most})", pairs=pairs, significant=hits)
    runs, wrong = 60, 0
    for _ in range(runs):
        values = chance.normal(0, DRIFT, (15, 1)) + chance.normal(0, LAUNCH, (15, 10))
        wrong += any(place != (1, 10) for place in rank_sets(certainly_less(values)))
    seen = f"in {wrong} of {runs} rankings of 10 copies one was placed (up to {most_by_chance(runs)})"
    yield _line("A/A ranking", wrong <= most_by_chance(runs), seen, rankings=runs, wrong=wrong)


def power() -> Iterator[Line]:
    """What is resolved at K = 10 and 15, as the protocol's table has it."""
    chance, trials = np.random.default_rng(2), 50
    plan = {"+5 %": (1.05, 10, 0.95), "+2 %": (1.02, 15, 0.70)}
    for name, (factor, count, rate) in plan.items():
        hits = sum(_slower(simulate({"a": 1e6, "b": 1e6 * factor}, count, chance)) for _ in range(trials))
        least = least_by_chance(trials, rate)
        seen = f"resolved as slower in {hits} of {trials} trials at K = {count} (at least {least})"
        yield _line(f"{name} is resolved", hits >= least, seen, trials=trials, resolved=hits)
    hits = sum(_slower(simulate({"a": 1e6, "b": 1.005e6}, 15, chance)) for _ in range(trials))
    most = most_by_chance(trials, 0.15)
    seen = f"resolved as slower in {hits} of {trials} trials at K = 15 (up to {most})"
    yield _line("+0.5 % is not claimed", hits <= most, seen, trials=trials, resolved=hits)


def _slower(sets: Sequence[LaunchSet]) -> bool:
    ratio, _low = paired_ratio(sets, "b", "a")
    return ratio.low is not None and ratio.low > 1


def coverage() -> Iterator[Line]:
    """The intervals of medians and of ratios hold the truth as often as they say."""
    chance, runs = np.random.default_rng(3), 400
    medians = ratios = 0
    for _ in range(runs):
        interval = median_interval((1e6 * chance.lognormal(0, 0.03, 10)).tolist())
        medians += interval.low is not None and interval.high is not None and interval.low <= 1e6 <= interval.high
        found, _low = paired_ratio(simulate({"a": 1e6, "b": 1.3e6}, 10, chance), "b", "a")
        ratios += found.low is not None and found.high is not None and found.low <= 1.3 <= found.high
    for name, hits in (("medians", medians), ("ratios", ratios)):
        share = hits / runs
        seen = f"{share:.1%} of {runs} intervals hold the truth (93 to 99.5 %; exact: 97.9 %)"
        yield _line(f"coverage of {name}", 0.93 <= share <= 0.995, seen, coverage=share)


def evidence() -> Iterator[Line]:
    """Each signal alone, at twice its limit, is named; none is named on a quiet host."""
    quiet = Disturbance(0.0, 0.0, 0, 0.0, 0.0, 0)
    calm = Probe(0.0, 100.0)
    batch = _batch(0, [10**6] * 100)
    cases: dict[str, tuple[Batch, Probe, Probe, Disturbance, float]] = {
        "cpu/wall": (dataclasses.replace(batch, cpu_ns=batch.wall_ns // 2), calm, calm, quiet, 100.0),
        "run-queue wait": (dataclasses.replace(batch, queued_ns=batch.wall_ns // 50), calm, calm, quiet, 100.0),
        "involuntary switches": (dataclasses.replace(batch, involuntary_switches=20), calm, calm, quiet, 100.0),
        "major faults": (dataclasses.replace(batch, major_faults=3), calm, calm, quiet, 100.0),
        "hiccup": (batch, calm, Probe(0.02, 100.0), quiet, 100.0),
        "canary drift": (batch, calm, Probe(0.0, 94.0), quiet, 94.0),
        "canary level": (batch, calm, calm, quiet, 125.0),
        "steal": (batch, calm, calm, dataclasses.replace(quiet, steal=0.02), 100.0),
        "cpu pressure": (batch, calm, calm, dataclasses.replace(quiet, psi_cpu=0.2), 100.0),
        "memory pressure": (batch, calm, calm, dataclasses.replace(quiet, psi_memory=0.02), 100.0),
        "throttled periods": (batch, calm, calm, dataclasses.replace(quiet, throttled=2), 100.0),
        "thermal throttling": (batch, calm, calm, dataclasses.replace(quiet, thermal=1), 100.0),
    }
    wrong = [name for name, case in cases.items() if _named(*case) != {name}]
    silent = _named(batch, calm, calm, quiet, 100.0)
    seen = f"{len(cases) - len(wrong)} of {len(cases)} signals named alone" + (
        f"; not: {', '.join(wrong)}" if wrong else ""
    )
    yield _line("noise signals", not wrong and not silent, seen, signals=len(cases), wrong=len(wrong))


def _named(batch: Batch, before: Probe, after: Probe, host: Disturbance, clean: float) -> set[str]:
    noise = assess([batch], before, after, host, threads=1, usual=Usual(clean, 0.0, 0.0))
    return {reason.removeprefix("noisy: ").rpartition(" (")[0].rpartition(" ")[0] for reason in noise.reasons}


def determinism() -> Iterator[Line]:
    """The same raw samples give bit-identical statistics, and the same seed the same order."""
    first, again = (simulate({"a": 1e6, "b": 1.1e6, "c": 0.9e6}, 10, np.random.default_rng(4)) for _ in range(2))
    same = [
        summarise(name, "a", first, PROFILES["standard"]) == summarise(name, "a", again, PROFILES["standard"])
        for name in "abc"
    ]
    orders = [schedule(["a", "b", "c"], 8, generator(5, "g", 1, 0)) for _ in range(2)]
    ok = all(same) and orders[0] == orders[1]
    seen = f"{sum(same)} of 3 summaries and the running order came out twice alike"
    yield _line("determinism", ok, seen, summaries=sum(same))


def known_truth() -> Iterator[Line]:
    """A ratio of exactly 2 reads as 2 whatever the drift."""
    found, _low = paired_ratio(simulate({"a": 1e6, "b": 2e6}, 15, np.random.default_rng(6)), "b", "a")
    ok = found.low is not None and found.high is not None and found.low <= 2 <= found.high
    yield _line("known ratio", ok and abs(found.point / 2 - 1) < 0.02, f"2 reads {found.point:.4f}", ratio=found.point)
