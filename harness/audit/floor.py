"""Demands of physics on one record: no cell is faster than its arithmetic allows."""

from __future__ import annotations

from collections.abc import Iterator

from harness import codec
from harness.audit.launches import Breach
from harness.leaderboard.rows import runs_no_model
from harness.stats.roofline import impossible_ceilings, limit_ns, roofline, too_fast, work_of
from harness.store.verify import differences
from harness.types import Record


def breaches(record: Record) -> Iterator[Breach]:
    """Yield what a record breaks.

    One that names no ceilings is held against what no CPU reaches.
    """
    artifact, latency = record.artifact, record.latency
    if artifact is None or latency is None or runs_no_model(record):
        return
    options, told = record.cell.options, record.roofline
    work = work_of(
        artifact,
        record.placements,
        record.lineage,
        options.batch,
        record.provenance.get("sparsity_kernels", ""),
    )
    if work.reason:
        return
    took = f"p50 {latency.p50_ns.point / 1e3:.4g} us"
    limit = limit_ns(work, options.threads)
    if too_fast(latency, limit):
        yield "floor", f"{took}: {sum(work.macs.values()):.3g} MACs take {limit / 1e3:.4g} us on any CPU"
        return
    if told is None or told.ceilings is None:
        return
    strange = [name for name in impossible_ceilings(told.ceilings) if name]
    if strange:
        yield "floor", f"claims a ceiling of {strange[0]} that no CPU with {told.ceilings.threads} threads has"
    if told.ceilings.threads != options.threads:
        yield "floor", f"its ceilings are of {told.ceilings.threads} threads, it ran with {options.threads}"
    again = roofline(work, latency, told.ceilings)
    for where in differences(codec.to_data(told), codec.to_data(again)):
        yield "floor", f"does not follow from what ran: {where}"
    if too_fast(latency, again.least_ns) and again.least_ns is not None:
        yield "floor", f"{took} is under the physical floor of its host, {again.least_ns / 1e3:.4g} us"
