"""Lines on raw data that was recorded on a real, loaded host and ships with the package: always evaluable.

``recorded.xz`` holds one line of JSON (what was recorded, where, when; the launch-sets of the disturbances) and the
samples of twenty copies of one target in twenty series of six launch-sets: a byte for the length of each batch, and
each sample as a 32-bit difference from the time that was spun. The host was busy throughout: every launch is noisy.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import lzma
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from harness import codec
from harness.measure.counters import Disturbance
from harness.measure.noise import Probe, assess
from harness.profiles import PROFILES
from harness.selftest.known import least_by_chance, most_by_chance
from harness.selftest.values import Line
from harness.stats import certainly_less, paired_ratio, rank_sets, summarise
from harness.stats.ratio import batch_median, set_log_ratio
from harness.types import REPLICATION, SCHEMA, Batch, Launch, LaunchSet, Noise

COPIES = 10  # that one ranking compares
LOADED = {"cpu/wall", "hiccup"}  # signals that a host with more to run than CPUs has to raise
PLANTED = {"+5 %": (1.05, 0.95), "+2 %": (1.02, 0.70)}  # factor, and share of pairs in which it has to be resolved
_NOISY = Noise(0.2, 0.8, 0.8, 10.0, 10.0, 60.0, 0.0, 1.0, 0, 0, "noisy", ("noisy: recorded on a loaded host",))


@dataclass(frozen=True)
class Recorded:
    """What the file holds.

    Attributes:
        series: Launch-sets of copies that are alike, copy00 to copy19.
        disturbed: Launch-sets with what was done to the host meanwhile; "" for nothing but its load.
    """

    about: str
    series: tuple[tuple[LaunchSet, ...], ...]
    disturbed: tuple[tuple[str, LaunchSet], ...]


@functools.cache
def read() -> Recorded:
    """Read the recorded data."""
    raw = lzma.decompress(files("harness.selftest").joinpath("recorded.xz").read_bytes())
    text, _, rest = raw.partition(b"\n")
    head = json.loads(text)
    count = head["series"] * head["sets"] * head["copies"] * head["rounds"]
    lengths = np.frombuffer(rest, np.uint8, count)
    samples = np.frombuffer(rest, "<i4", offset=count).astype(np.int64) + head["spin_ns"]
    batches = iter(np.split(samples, np.cumsum(lengths)[:-1].astype(np.int64)))
    series = tuple(
        tuple(_set(number, head["copies"], head["rounds"], batches) for number in range(head["sets"]))
        for _ in range(head["series"])
    )
    disturbed = [
        (item["disturbed"], codec.from_data(LaunchSet, item["set"], where="recorded.xz")) for item in head["noise"]
    ]
    about = f"{head['cpu']}, {head['hypervisor']}, {head['recorded_utc'][:10]}"
    return Recorded(about, series, tuple(disturbed))


def _set(number: int, copies: int, rounds: int, batches: Iterator[np.ndarray]) -> LaunchSet:
    names = tuple(f"copy{place:02}" for place in range(copies))
    launches = tuple(
        Launch(
            name, number, 0, 1, 1, 1, 10, 1, True, 1, (0,), "1",
            tuple(_batch(turn, next(batches).tolist()) for turn in range(rounds)), _NOISY,
        )
        for name in names
    )  # fmt: skip
    return LaunchSet(SCHEMA, "recorded", number * REPLICATION, "variants", names[0], names, "", 1.0, launches)


def _batch(turn: int, ns: Sequence[int]) -> Batch:
    return Batch(turn, 0, tuple(ns), sum(ns), sum(ns), 0, 0, 0)


def _line(name: str, ok: bool, seen: str, **figures: float) -> Line:
    return Line(name, "recorded", "pass" if ok else "fail", seen, figures)


def _pairs(joined: int = 1, factor: float = 1.0) -> Iterator[tuple[float, float, float]]:
    """Yield ratio and interval of each disjoint pair; the second's samples are multiplied by ``factor``.

    Args:
        joined: Series that follow each other as the launch-sets of one comparison.
        factor: A difference that is planted.
    """
    every = read().series
    for start in range(0, len(every), joined):
        sets = [_slowed(item, factor) for series in every[start : start + joined] for item in series]
        names = sets[0].members
        for first, second in zip(names[::2], names[1::2], strict=True):
            found, _low = paired_ratio(sets, second, first)
            yield found.point, found.low or 0.0, found.high or math.inf


def _slowed(item: LaunchSet, factor: float) -> LaunchSet:
    """Multiply the samples of every second copy."""
    slow = set(item.members[1::2]) if factor != 1 else set()

    def change(launch: Launch) -> Launch:
        parts = tuple(
            dataclasses.replace(part, ns=tuple(round(ns * factor) for ns in part.ns)) for part in launch.batches
        )
        return dataclasses.replace(launch, batches=parts)

    changed = tuple(change(launch) if launch.cell_id in slow else launch for launch in item.launches)
    return dataclasses.replace(item, launches=changed)


def same_things() -> Iterator[Line]:
    """A/A over 200 pairs of real launches, the copies ranked, and a planted ratio held by the intervals."""
    found = list(_pairs())
    hits = sum(not low <= 1 <= high for _point, low, high in found)
    middle = statistics.median(abs(math.log(point)) for point, _low, _high in found)
    most = most_by_chance(len(found))
    where = f"recorded under load on {read().about}"
    seen = f"{hits} of {len(found)} pairs differ (up to {most}); median |log ratio| {middle:.3%}; {where}"
    yield _line("A/A", hits <= most and middle <= 0.01, seen, pairs=len(found), significant=hits)
    wrong = ranked = 0
    for series in read().series:
        for start in range(0, len(series[0].members), COPIES):
            ranked, wrong = ranked + 1, wrong + _placed(series, series[0].members[start : start + COPIES])
    seen = f"in {wrong} of {ranked} rankings of {COPIES} copies one was placed (up to {most_by_chance(ranked)})"
    yield _line("A/A ranking", wrong <= most_by_chance(ranked), seen, rankings=ranked, wrong=wrong)
    held = sum(low <= 1.3 <= high for _point, low, high in _pairs(factor=1.3))
    least = least_by_chance(len(found), 0.95)
    seen = f"{held} of {len(found)} intervals hold a planted ratio of 1.3 (at least {least})"
    yield _line("coverage of ratios", held >= least, seen, pairs=len(found), held=held)


def _placed(series: Sequence[LaunchSet], names: Sequence[str]) -> bool:
    rows = [[set_log_ratio(item, name, names[0], batch_median) for name in names] for item in series]
    values = np.array([[math.nan if value is None else value for value in row] for row in rows])
    return any(place != (1, len(names)) for place in rank_sets(certainly_less(values)))


def power() -> Iterator[Line]:
    """A small difference, planted into real samples, is resolved in twelve launch-sets."""
    for name, (factor, share) in PLANTED.items():
        found = list(_pairs(joined=2, factor=factor))
        hits, least = sum(low > 1 for _point, low, _high in found), least_by_chance(len(found), share)
        seen = f"planted, resolved as slower in {hits} of {len(found)} pairs at K = 12 (at least {least})"
        yield _line(f"{name} is resolved", hits >= least, seen, pairs=len(found), resolved=hits)


def detectors() -> Iterator[Line]:
    """The evidence of recorded launches, judged again: what was done to the host is named, and nothing that was not."""
    known = [(what, launch) for what, item in read().disturbed for launch in item.launches]
    named = [(what, _named(launch)) for what, launch in known]
    loaded = sum(names >= LOADED for _what, names in named)
    seen = f"{loaded} of {len(named)} launches beside other work named as cpu/wall and hiccup"
    yield _line("noise: a loaded host", loaded == len(named), seen, launches=len(named), named=loaded)
    held = [names for what, names in named if what == "throttled"]
    free = [names for what, names in named if what != "throttled"]
    right, wrong = (sum("throttled periods" in names for names in part) for part in (held, free))
    seen = (
        f"named in {right} of {len(held)} launches in a cgroup with a tenth of a CPU, in {wrong} of {len(free)} others"
    )
    yield _line("noise: a throttled cgroup", right == len(held) and not wrong, seen, named=right, wrong=wrong)


def _named(launch: Launch) -> set[str]:
    """Judge a launch from its batches and probes, not from the verdict that was stored with it."""
    old = launch.noise
    host = Disturbance(old.steal, old.psi_cpu, old.throttled, old.psi_memory, old.psi_io, old.thermal)
    before = Probe(old.hiccup_before, old.canary_before_gflops)
    after = Probe(old.hiccup_after, old.canary_after_gflops)
    noise = assess(launch.batches, before, after, host, threads=1, usual=None)
    noisy = (reason for reason in noise.reasons if reason.startswith("noisy: "))
    return {name for reason in noisy for name in THRESHOLD_NAMES if reason.startswith(f"noisy: {name} ")}


THRESHOLD_NAMES = (*sorted(LOADED), "throttled periods", "involuntary switches", "cpu pressure", "canary drift")


def determinism() -> Iterator[Line]:
    """The same raw file, read twice, gives the same statistics to the last bit."""
    first = _summaries()
    read.cache_clear()
    again = _summaries()
    same = sum(first[name] == again[name] for name in first)
    seen = f"{same} of {len(first)} summaries of one raw file came out twice alike, bit by bit"
    yield _line("determinism", same == len(first), seen, summaries=same)


def _summaries() -> Mapping[str, bytes]:
    sets = read().series[0]
    return {name: codec.dumps(summarise(name, "copy00", sets, PROFILES["quick"])) for name in sets[0].members}
