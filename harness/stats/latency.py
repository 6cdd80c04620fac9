"""Summary of one cell's launches: recomputable from the raw sets at any time."""

from __future__ import annotations

import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from harness.errors import HarnessError
from harness.profiles import Profile
from harness.stats import steady
from harness.stats.bootstrap import disagree, two_level
from harness.stats.dismiss import dismiss_noisy
from harness.stats.effects import cliffs_delta, hodges_lehmann
from harness.stats.order import median_interval, quantile, robust_cv
from harness.stats.percentiles import percentile_support
from harness.stats.ratio import MARGIN, MARGINS, batch_median, paired_ratio, set_log_ratio, verdict
from harness.types import Interval, Latency, Launch, LaunchSet, NoiseVerdict, SpeedVerdict

CV_OK, CV_NOISY = 0.02, 0.05  # robust CV of launch medians (MEASUREMENT 1.8)
DISCARDED_OK, DISCARDED_NOISY = 0.10, 0.30
UNSTEADY = 0.20
STATISTICS = 3  # version of what is written here; a summary of an older one is checked in its figures only
WIDTH_NOISY = 2.0  # times the profile's target


def _samples(launch: Launch) -> list[int]:
    return [ns for batch in launch.batches for ns in batch.ns]


def summarise(cell_id: str, anchor_id: str | None, sets: Sequence[LaunchSet], profile: Profile) -> Latency:
    """Reduce a cell's raw launches to its latency, ratio and verdicts.

    Args:
        cell_id: The cell.
        anchor_id: What it is compared with; ``None`` where there is none, itself for the anchor.
        sets: Launch-sets, of which only those with this cell count.
        profile: Target width, and by its name the margin of the verdict.

    Raises:
        HarnessError: No launch of this cell counts.
    """
    kept = dismiss_noisy(sets, cell_id, anchor_id)
    every = launches_of(cell_id, kept)
    used = [launch for launch in every if not launch.discarded and _samples(launch)]
    if not used:
        raise HarnessError(f"cell {cell_id} has no launch that counts; {len(every)} were discarded")
    medians = [statistics.median(_samples(launch)) for launch in used]
    p50, classes = median_interval(medians), Counter(steady.classify(_samples(launch)) for launch in used)
    bootstrap = two_level([[batch_median(batch) for batch in launch.batches if batch.ns] for launch in used])
    unsteady = _unsteady(used)
    noise, reasons = cell_noise(every, used, p50, profile, unsteady)
    if disagree(p50, bootstrap):
        reasons += (f"ci_disagree: order statistics {_width(p50)}, two-level bootstrap {_width(bootstrap)}",)
    ratios = _ratios(kept, cell_id, anchor_id)
    word, why = _verdict(cell_id, anchor_id, ratios, noise, profile)
    pooled = [ns for launch in used for ns in _samples(launch)]
    mean_ns = statistics.fmean(pooled)
    return Latency(
        p50_ns=p50,
        p90_ns=_percentile(used, len(pooled), 0.90),
        p99_ns=_percentile(used, len(pooled), 0.99),
        min_ns=float(min(pooled)),
        mean_ns=mean_ns,
        throughput_per_s=used[0].batch_size * 1e9 / mean_ns if mean_ns else 0.0,
        robust_cv=robust_cv(medians),
        launches=len(used),
        discarded=len(every) - len(used),
        unsteady=unsteady,
        samples=len(pooled),
        ratio=ratios[0] if ratios else None,
        ratio_p10=ratios[1] if ratios else None,
        verdict=word,
        noise=noise,
        reasons=reasons + why,
        statistics=STATISTICS,
        steadiness=dict(sorted(classes.items())),
        bootstrap=bootstrap,
        p99_worst_ns=_percentile(used, len(pooled), 0.99, max),
        compute_ns=_compute(used),
        ready_ns=_median_of(used, lambda launch: launch.ready_ns),
        load_ns=_median_of(used, lambda launch: launch.load_ns),
        start_ns=_median_of(used, lambda launch: launch.first_ns),
        time_to_first_inference_ns=_median_of(used, _to_first_inference),
        ratio_hodges_lehmann=_typical_ratio(kept, cell_id, anchor_id) if ratios else None,
        cliffs_delta=_delta(kept, medians, anchor_id) if ratios else None,
        parts_ns=_parts(used),
    )


def narrow(latency: Latency, profile: Profile) -> bool:
    """Tell whether the intervals of a cell reach the profile's target width: what sequential stopping looks at."""
    known = [found for found in (latency.p50_ns, latency.ratio) if found is not None and found.point]
    return all(_half(interval) <= profile.half_width for interval in known)


def _half(interval: Interval) -> float:
    if interval.low is None or interval.high is None:
        return math.inf
    return (interval.high - interval.low) / 2 / interval.point


def launches_of(cell_id: str, sets: Sequence[LaunchSet]) -> list[Launch]:
    """Return every launch of a cell, discarded ones too."""
    return [launch for item in sets for launch in item.launches if launch.cell_id == cell_id]


def _unsteady(used: Sequence[Launch]) -> int:
    """Count the launches that never settled while warming up, or moved while they were measured."""
    moving = {"unsteady", "slowdown"}
    return sum(not launch.steady or steady.classify(_samples(launch)) in moving for launch in used)


def _width(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "none"
    return f"{(interval.high - interval.low) / max(interval.point, 1):.1%} of the median wide"


def _compute(used: Sequence[Launch]) -> Interval | None:
    medians = [
        statistics.median(ns for batch in launch.compute for ns in batch.ns) for launch in used if launch.compute
    ]
    return median_interval(medians) if medians else None


def _parts(used: Sequence[Launch]) -> tuple[Interval, ...] | None:
    """Return each part's p50 over the launches: the median of its medians, like that of the whole."""
    places = sorted({batch.position for launch in used for batch in launch.parts})
    found = tuple(
        median_interval(
            [statistics.median(batch.ns) for launch in used for batch in launch.parts if batch.position == place]
        )
        for place in places
    )
    return found or None


def _typical_ratio(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str | None) -> float | None:
    logs = [set_log_ratio(item, cell_id, anchor_id or cell_id, batch_median) for item in sets]
    known = [value for value in logs if value is not None]
    return math.exp(hodges_lehmann(known)) if known else None


def _delta(sets: Sequence[LaunchSet], medians: Sequence[float], anchor_id: str | None) -> float | None:
    others = [
        statistics.median(_samples(launch))
        for launch in launches_of(anchor_id or "", sets)
        if not launch.discarded and _samples(launch)
    ]
    return cliffs_delta(medians, others) if others else None


def _median_of(launches: Sequence[Launch], value: Callable[[Launch], float | None]) -> float | None:
    known = [found for launch in launches if (found := value(launch)) is not None]
    return float(statistics.median(known)) if known else None


def _to_first_inference(launch: Launch) -> float | None:
    return None if launch.ready_ns is None else launch.ready_ns + launch.load_ns + launch.first_ns


@functools.cache
def _support(share: float) -> int:
    return percentile_support(share)


def _percentile(
    launches: Sequence[Launch], pooled: int, share: float, reduce: Callable[[list[float]], float] = statistics.median
) -> float | None:
    """Return the median (or another reduction) over launches of a percentile, where the pooled sample carries it.

    Samples that are averages of an inner loop have no percentile of a single query.
    """
    if pooled < _support(share) or any(launch.inner_loops > 1 for launch in launches):
        return None
    return float(reduce([quantile(_samples(launch), share) for launch in launches]))


def _ratios(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str | None) -> tuple[Interval, Interval] | None:
    if anchor_id is None or anchor_id == cell_id:
        return None
    try:
        return paired_ratio(sets, cell_id, anchor_id)
    except ValueError:  # the anchor failed in every set of this cell; the verdict says so
        return None


def _verdict(
    cell_id: str, anchor_id: str | None, ratios: tuple[Interval, Interval] | None, noise: NoiseVerdict, profile: Profile
) -> tuple[SpeedVerdict, tuple[str, ...]]:
    if anchor_id is None:
        return "no anchor", ()
    if cell_id == anchor_id:
        return "anchor", ()
    margin = MARGINS.get(profile.name, MARGIN)
    return verdict(ratios[0] if ratios else None, ratios[1] if ratios else None, noise, margin)


def cell_noise(
    every: Sequence[Launch], used: Sequence[Launch], p50: Interval, profile: Profile, unsteady: int
) -> tuple[NoiseVerdict, tuple[str, ...]]:
    """Return the noise verdict of a cell with its reasons (MEASUREMENT 1.8).

    A launch that is noisy but was not discarded, because the profile retries no more, counts as a discarded one:
    a board made beside noisy neighbours has to say so.
    """
    medians = [statistics.median(_samples(launch)) for launch in used]
    bad = sum(bool(launch.discarded) or launch.noise.verdict == "noisy" for launch in every) / len(every)
    signals = [
        _judge(robust_cv(medians), CV_OK, CV_NOISY, "robust CV of launch medians {:.1%}"),
        _judge(bad, DISCARDED_OK, DISCARDED_NOISY, "{:.0%} of launches noisy or discarded"),
        _judge(unsteady / len(used), UNSTEADY, 1.0, "{:.0%} of launches unsteady or slowing down"),
    ]
    if p50.low is not None and p50.high is not None and p50.point:
        width = profile.half_width
        signals.append(_judge(_half(p50), width, WIDTH_NOISY * width, "half-width {:.1%} of the median"))
    words = {word for word, _ in signals}
    worst: NoiseVerdict = "noisy" if "noisy" in words else "suspect" if "suspect" in words else "ok"
    return worst, tuple(reason for word, reason in signals if word != "ok") + _causes(every)


def _judge(value: float, ok: float, noisy: float, words: str) -> tuple[NoiseVerdict, str]:
    text = f"{words.format(value)} (ok up to {ok:.0%})"
    if value <= ok:
        return "ok", text
    return ("noisy" if value > noisy else "suspect"), text


def _causes(every: Sequence[Launch]) -> tuple[str, ...]:
    """Return how many launches each signal made noisy, the most frequent first."""
    names = [
        reason.removeprefix("noisy: ").rpartition(" (")[0].rpartition(" ")[0]
        for launch in every
        for reason in launch.noise.reasons
        if reason.startswith("noisy: ")
    ]
    counts = sorted({(-names.count(name), name) for name in names})
    return tuple(f"{name} noisy in {-count} of {len(every)} launches" for count, name in counts)
