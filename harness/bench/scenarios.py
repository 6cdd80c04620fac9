"""Scenarios of a run's cells: measured after the launch-sets, and put side by side across cells."""

from __future__ import annotations

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
    """Yield the best batch of each offline sweep: what no section of a board shows, as it is of one batch."""
    yield from _best_batches(records)


def _name(record: Record) -> str:
    return f"{record.labels.get('workload')} {record.labels.get('method')} on {record.labels.get('target')}"


def _best_batches(records: Sequence[Record]) -> Iterator[str]:
    rates: dict[str, list[tuple[float, int]]] = {}
    for record, result in _of(records, "offline"):
        rates.setdefault(_name(record), []).append((result.figures["samples_per_s"], record.cell.options.batch))
    for name, found in rates.items():
        if len(found) > 1:
            best, batch = max(found)
            yield f"offline: {name} is best at batch {batch}: {best:.4g} items/s"


def _of(records: Sequence[Record], scenario: str) -> Iterator[tuple[Record, ScenarioResult]]:
    for record in records:
        for result in record.scenarios:
            if result.scenario == scenario and not result.reason:
                yield record, result
