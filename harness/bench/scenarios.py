"""Scenarios of a run's cells: measured after the launch-sets, and put side by side across cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.measure import Member
from harness.measure.scenarios import run_scenario
from harness.profiles import Profile
from harness.types import Failure, Record, ScenarioResult


@dataclass(frozen=True)
class ScenarioPart:
    """The finished scenario of a cell."""

    result: ScenarioResult


def measure(member: Member, scenario: str, profile: Profile, *, seed: int, timeout_s: float) -> ScenarioPart:
    """Run one scenario of a cell; what goes wrong is its reason and costs nothing else."""
    if scenario in {"server", "sustained", "single_stream"} and member.options.batch != 1:
        return ScenarioPart(
            ScenarioResult(scenario, {}, reason=f"{scenario} queries hold one item; the batch is not 1")
        )
    found = run_scenario(member, scenario, profile, seed=seed, timeout_s=timeout_s)
    if isinstance(found, Failure):
        return ScenarioPart(ScenarioResult(scenario, {}, reason=f"{found.status}: {found.reason}"))
    return ScenarioPart(found)


def summaries(records: Sequence[Record]) -> Iterator[str]:
    """Yield a line per scenario and cell, the best batch of an offline sweep, and what lasting load changes."""
    for record in records:
        for result in record.scenarios:
            yield f"{result.scenario}: {_name(record)}, batch {record.cell.options.batch}: {_words(result)}"
    yield from _best_batches(records)
    yield from _sustained_order(records)


def _name(record: Record) -> str:
    return f"{record.labels.get('workload')} {record.labels.get('method')} on {record.labels.get('target')}"


def _words(result: ScenarioResult) -> str:
    figures = result.figures
    if result.reason:
        return result.reason
    if result.scenario == "offline":
        return f"{figures['samples_per_s']:.4g} items/s"
    if result.scenario == "server":
        return f"{figures['qps']:.4g} queries/s with p99 under {figures['p99_limit_ns'] / 1e6:.3g} ms"
    if result.scenario == "sustained":
        return f"p50 {figures['p50_ns'] / 1e6:.4g} ms, at its end {figures['slowdown']:.3f} times that of its beginning"
    return f"p50 {figures['p50_ns'] / 1e6:.4g} ms, p90 {figures['p90_ns'] / 1e6:.4g} ms"


def _best_batches(records: Sequence[Record]) -> Iterator[str]:
    rates: dict[str, list[tuple[float, int]]] = {}
    for record, result in _of(records, "offline"):
        rates.setdefault(_name(record), []).append((result.figures["samples_per_s"], record.cell.options.batch))
    for name, found in rates.items():
        if len(found) > 1:
            best, batch = max(found)
            yield f"offline: {name} is best at batch {batch}: {best:.4g} items/s"


def _sustained_order(records: Sequence[Record]) -> Iterator[str]:
    """Compare the order of cells under lasting load with their order in bursts, per workload and thread count."""
    groups: dict[tuple[str, int], list[tuple[str, float, float]]] = {}
    for record, result in _of(records, "sustained"):
        if record.latency is not None:
            key = (str(record.labels.get("workload")), record.cell.options.threads)
            row = (_name(record), record.latency.p50_ns.point, result.figures["p50_ns"])
            groups.setdefault(key, []).append(row)
    for (workload, threads), rows in groups.items():
        pairs = list(itertools.combinations(rows, 2))
        turned = [(a[0], b[0]) for a, b in pairs if (a[1] - b[1]) * (a[2] - b[2]) < 0]
        if pairs:
            said = f"{len(pairs) - len(turned)} of {len(pairs)} pairs in the order of the bursts"
            which = "; turned: " + ", ".join(f"{a} / {b}" for a, b in turned) if turned else ""
            yield f"sustained: {workload}, {threads} threads: {said}{which}"


def _of(records: Sequence[Record], scenario: str) -> Iterator[tuple[Record, ScenarioResult]]:
    for record in records:
        for result in record.scenarios:
            if result.scenario == scenario and not result.reason:
                yield record, result
