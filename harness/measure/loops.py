"""The timed loops. Whatever is not needed between the two clock reads happens before or after them."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.measure.member import Warmed, WarmUp
from harness.types import Batch

CLOCK_FACTOR = 1000  # an iteration lasts for at least this many clock reads, or runs in an inner loop
INNER_SAMPLE_NS = 1_000_000  # how long a sample with an inner loop lasts
SETTLE_BELOW_NS = 10_000_000  # shorter iterations get an untimed one first: refilling the caches would show
MIN_WINDOW = 10  # iterations in a warm-up window
MAX_WINDOW_NS = 250_000_000
TOLERANCE = {"median": 0.02, "quartile": 0.05, "mad": 0.10}  # between two windows (MEASUREMENT 1.5)
MAD_NOISE = 0.01  # MADs that differ by less than this share of the median agree: theirs is sampling noise

DEVICE_SAMPLE_NS = 100_000_000  # of runs on another machine: it starts a process for each sample

Run = Callable[[Any], Any]
Clocked = Callable[[Any, int], int]
clock = time.perf_counter_ns


def clock_cost_ns(reads: int = 1001) -> float:
    """Return the median cost of one clock read, found from back-to-back reads."""
    stamps = [clock() for _ in range(reads)]
    return quantile([after - before for before, after in itertools.pairwise(stamps)], 0.5)


def queued_ns() -> int | None:
    """Return how long the calling thread was ready to run and had no CPU; ``None`` where nothing tells.

    Other threads of a runtime wait for this one on the CPU that they share, which disturbs no inference. The figure is
    the second one of schedstat: https://docs.kernel.org/scheduler/sched-stats.html
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # no Linux, or a kernel without it
        return None


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile by linear interpolation (Hyndman and Fan's type 7), without loading more than builtins."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def timed(run: Run, feed: Sequence[Any], max_ns: int) -> list[int]:
    """Time one call per item of ``feed``; stop after ``max_ns`` with at least one sample.

    Returns:
        Nanoseconds of each call.
    """
    ns = [0] * len(feed)
    done = 0
    deadline = clock() + max_ns
    for item in feed:
        before = clock()
        run(item)
        after = clock()
        ns[done] = after - before
        done += 1
        if after > deadline:
            break
    return ns[:done]


def timed_groups(run: Run, feed: Sequence[Sequence[Any]], max_ns: int) -> list[int]:
    """Time one group of calls per item of ``feed``, for runs too short to be timed alone.

    Returns:
        Nanoseconds of one call, averaged over its group.
    """
    ns = [0] * len(feed)
    done = 0
    deadline = clock() + max_ns
    for group in feed:
        before = clock()
        for item in group:
            run(item)
        after = clock()
        ns[done] = (after - before) // len(group)
        done += 1
        if after > deadline:
            break
    return ns[:done]


def agree(first: Sequence[float], second: Sequence[float]) -> bool:
    """Tell whether two windows look alike: medians within 2 %, quartiles 5 %, MAD 10 % (MEASUREMENT 1.5)."""
    middles = [quantile(window, 0.5) for window in (first, second)]
    scale = max(min(middles), 1.0)
    if abs(middles[0] - middles[1]) > TOLERANCE["median"] * scale:
        return False
    for share in (0.25, 0.75):
        sides = [quantile(window, share) for window in (first, second)]
        if abs(sides[0] - sides[1]) > TOLERANCE["quartile"] * max(min(sides), 1.0):
            return False
    mads = [_mad(first, middles[0]), _mad(second, middles[1])]
    return abs(mads[0] - mads[1]) <= max(TOLERANCE["mad"] * min(mads), MAD_NOISE * scale)


def _mad(values: Sequence[float], middle: float) -> float:
    return quantile([abs(value - middle) for value in values], 0.5)


class Loop:
    """The state of one session under measurement: its inputs, where it is in them, and how long a run takes.

    Args:
        run: One synchronous inference.
        pool: Prepared inputs in the order in which they are rotated.
        clocked: Takes the time in place of this clock: inputs and runs -> mean nanoseconds of one run.
    """

    def __init__(self, run: Run, pool: Sequence[Any], clocked: Clocked | None = None) -> None:
        self.run = run
        self.pool = pool
        self.clocked = clocked
        self.cursor = 0
        self.inner = 1
        self.typical_ns = 1.0
        self.budget: WarmUp | None = None

    def feed(self, samples: int) -> list[Any]:
        """Return the next inputs: one per sample, or a group of ``inner`` per sample."""
        count = samples * self.inner
        size = len(self.pool)
        items = [self.pool[(self.cursor + step) % size] for step in range(count)]
        self.cursor = (self.cursor + count) % size
        if self.inner == 1:
            return items
        return [items[start : start + self.inner] for start in range(0, count, self.inner)]

    def sample(self, samples: int, max_ns: int) -> list[int]:
        """Time ``samples`` samples with garbage collection off."""
        if self.clocked is not None:
            return self._elsewhere(self.clocked, samples, max_ns)
        feed = self.feed(samples)
        collecting = gc.isenabled()
        gc.disable()
        try:
            return (timed if self.inner == 1 else timed_groups)(self.run, feed, max_ns)
        finally:
            if collecting:
                gc.enable()

    def _elsewhere(self, clocked: Clocked, samples: int, max_ns: int) -> list[int]:
        deadline = clock() + max_ns
        found: list[int] = []
        while len(found) < samples and (not found or clock() < deadline):
            found.append(clocked(self.pool[self.cursor], self.inner))
            self.cursor = (self.cursor + 1) % len(self.pool)
        return found

    def samples_for(self, ns: float) -> int:
        """Return how many samples fill ``ns``."""
        return max(1, math.ceil(ns / (self.typical_ns * self.inner)))

    def warm(self, budget: WarmUp) -> Warmed:
        """Run until two windows in a row agree, at least and at most as long as the budget says."""
        self.budget = budget
        start = clock()
        cost = clock_cost_ns()
        first = self.sample(2, budget.max_ns)
        self._fit_inner(quantile(first, 0.5), cost)
        window_ns = min(MAX_WINDOW_NS, budget.ns // 2)
        windows: list[list[int]] = []
        count, steady = len(first), False
        while not steady and clock() - start < budget.max_ns:
            least = max(MIN_WINDOW, self.samples_for(window_ns))
            windows.append(self.sample(least, budget.max_ns - (clock() - start)))
            count += len(windows[-1]) * self.inner
            self._fit_inner(quantile(windows[-1], 0.5), cost)
            enough = count >= budget.iterations and clock() - start >= budget.ns
            steady = enough and len(windows) > 1 and agree(windows[-2], windows[-1])
        return Warmed(count, clock() - start, steady or self._halves(windows), self.inner, cost)

    def settle(self, whole: Loop) -> None:
        """Warm a part of what another loop has warmed: its budget holds here too."""
        self.budget, cost = whole.budget, clock_cost_ns()
        self._fit_inner(quantile(self.sample(MIN_WINDOW, INNER_SAMPLE_NS * MIN_WINDOW), 0.5), cost)
        self._fit_inner(quantile(self.sample(MIN_WINDOW, INNER_SAMPLE_NS * MIN_WINDOW), 0.5), cost)

    def _halves(self, windows: Sequence[Sequence[int]]) -> bool:
        """Judge a model so slow that the cap came within its first two windows."""
        series = [value for window in windows for value in window]
        if len(windows) > 2 or len(series) < 6:
            return False
        return agree(series[: len(series) // 2], series[len(series) // 2 :])

    def _fit_inner(self, typical_ns: float, cost_ns: float) -> None:
        self.typical_ns = max(typical_ns, 1.0)
        if self.clocked is not None:
            self.inner = math.ceil(DEVICE_SAMPLE_NS / self.typical_ns)
            return
        short = typical_ns < CLOCK_FACTOR * cost_ns
        self.inner = math.ceil(INNER_SAMPLE_NS / self.typical_ns) if short else 1

    def batch(self, number: int, position: int) -> Batch:
        """Run one batch: ``max(batch_iterations, batch_ns)``, at most ``batch_max_ns``.

        The inner loop stays as the warm-up found it, so that samples of one launch are alike.
        """
        import resource  # not on every platform; the worker's timed path needs it anyway

        if self.budget is None:
            raise RuntimeError("a batch was asked for before the warm-up")
        if self.typical_ns < SETTLE_BELOW_NS and self.clocked is None:
            self.run(self.pool[self.cursor])
        samples = max(self.budget.batch_iterations, self.samples_for(self.budget.batch_ns))
        queued, before = queued_ns(), resource.getrusage(resource.RUSAGE_SELF)
        cpu, wall = time.process_time_ns(), clock()
        ns = self.sample(samples, self.budget.batch_max_ns)
        wall, cpu = clock() - wall, time.process_time_ns() - cpu
        after, queued_then = resource.getrusage(resource.RUSAGE_SELF), queued_ns()
        return Batch(
            number,
            position,
            tuple(ns),
            wall,
            cpu,
            after.ru_nivcsw - before.ru_nivcsw,
            after.ru_nvcsw - before.ru_nvcsw,
            after.ru_majflt - before.ru_majflt,
            None if queued is None or queued_then is None else max(0, queued_then - queued),
        )
