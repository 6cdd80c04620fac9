"""What a cell's page says of its physical floor, its weights and its energy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.leaderboard.digits import plain, ranged
from harness.leaderboard.escape import visible

if TYPE_CHECKING:
    from harness.types import Ceilings, Record


def figures(record: Record) -> Iterable[tuple[str, str, str]]:
    """Yield name, figure and small print for the head of the page."""
    top, energy = record.roofline, record.energy
    if top is not None and top.percent is not None:
        yield "of this host's roofline", f"{plain(top.percent)} %", f"{top.bound}-bound"
    if energy is not None and energy.joules is not None:
        low, high = energy.joules.low, energy.joules.high
        point, span = ranged(
            1e3 * energy.joules.point, None if low is None else 1e3 * low, None if high is None else 1e3 * high
        )
        yield "energy of an inference", f"{point} mJ", visible(f"{span} {energy.level}".strip())


def facts(record: Record) -> Iterable[tuple[str, str]]:
    """Yield name and value for the particulars."""
    if record.artifact is not None and record.artifact.weight_bytes:
        parts = sorted(record.artifact.weight_bytes.items(), key=lambda item: -item[1])
        yield "weights", ", ".join(f"{plain(size / 1024)} KiB of {name}" for name, size in parts)
    top = record.roofline
    if top is not None and top.floor_ns is not None:
        yield "physical floor", f"{plain(top.floor_ns / 1e3)} µs for {top.macs:,} multiply-accumulates"
        least = "not known" if top.least_ns is None else f"{plain(top.least_ns / 1e3)} µs"
        yield "rejected below", least
        if top.ceilings is not None:
            yield from _ceilings(top.ceilings)
    if top is not None and top.reason:
        yield "roofline", top.reason
    yield from _energy(record)


def _ceilings(top: Ceilings) -> Iterable[tuple[str, str]]:
    rates = [f"{name} {plain(rate / 1e9)} GMAC/s" for name, rate in sorted(top.macs_per_s.items())]
    rates += [f"{name} {plain(rate / 1e9)} GB/s" for name, rate in sorted(top.bytes_per_s.items())]
    yield f"ceilings of this host, {top.threads} thr", ", ".join(rates)
    if top.top_clock_hz:
        yield "highest clock", f"{plain(top.top_clock_hz / 1e9)} GHz, {top.top_clock_from}"


def _energy(record: Record) -> Iterable[tuple[str, str]]:
    found = record.energy
    if found is None:
        return
    yield "energy by", found.source
    yield "energy", f"not available: {found.reason}" if found.reason else ""
    if found.watts is not None and found.idle_watts is not None:
        yield "power", f"{plain(found.watts.point)} W, idle {plain(found.idle_watts)} W"
    if found.active_joules is not None:
        yield "energy less idle", f"{plain(1e3 * found.active_joules.point)} mJ an inference"
