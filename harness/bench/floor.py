"""The physical floor of a run's cells: ceilings of this host, read once for each number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.measure.ceilings import ceilings
from harness.stats.roofline import roofline, too_fast, work_of
from harness.types import Artifact, Ceilings, Latency, Placement, Roofline, StepRecord

STALE = "ceiling_stale"  # flag: faster than the measured ceiling, which was measured again
VIOLATION = "floor_violation"


@dataclass
class Floors:
    """Gives each cell its floor; a cell above the measured ceiling has the ceiling measured again."""

    host_id: str
    note: Callable[[str], None]
    known: dict[int, Ceilings] = field(default_factory=dict)
    renewed: set[int] = field(default_factory=set)

    def top(self, threads: int) -> Ceilings:
        """Return the ceilings for some threads."""
        if threads not in self.known:
            self.known[threads] = ceilings(threads, self.host_id)
        return self.known[threads]

    def of(
        self,
        artifact: Artifact,
        placements: tuple[Placement, ...],
        lineage: tuple[StepRecord, ...],
        latency: Latency,
        *,
        batch: int,
        threads: int,
        sparsity: str,
    ) -> Roofline:
        """Return the floor of one measured cell."""
        work = work_of(artifact, placements, lineage, batch, sparsity)
        if work.reason:
            return Roofline(reason=work.reason)
        found = roofline(work, latency, self.top(threads))
        if found.percent is not None and found.percent > 100 and threads not in self.renewed:
            self.note("a cell is faster than the ceiling of this host: measuring the ceiling again")
            self.renewed.add(threads)
            self.known[threads] = ceilings(threads, self.host_id, again=True)
            found = roofline(work, latency, self.known[threads])
        return found


def floor_flags(found: Roofline | None, latency: Latency | None) -> tuple[str, ...]:
    """Return the flags that a floor sets."""
    if found is None or latency is None:
        return ()
    if too_fast(latency, found.least_ns):
        return (VIOLATION,)
    return (STALE,) if found.percent is not None and found.percent > 100 else ()


def violation(found: Roofline | None, latency: Latency) -> str | None:
    """Say in a sentence why a cell is rejected as faster than physics allows; ``None`` where it is not."""
    if found is None or found.least_ns is None or not too_fast(latency, found.least_ns):
        return None
    clock = (found.ceilings.top_clock_hz or 0.0) / 1e9 if found.ceilings else 0.0
    took, least = (f"{ns / 1e3:.4g} us" for ns in (latency.p50_ns.point, found.least_ns))
    return (
        f"faster than the physical floor: {took} for {found.macs:.3g} multiply-accumulates, which take {least} at "
        f"{clock:.1f} GHz: it computed something else, or its counts are wrong"
    )
