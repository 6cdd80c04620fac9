"""Which watts an offer is reckoned with: those of its own cell, or of the prices file; the higher level wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.procure.prices import Watts
from harness.types import Energy, Interval

if TYPE_CHECKING:
    from harness.procure.values import Offer


@dataclass(frozen=True)
class Power:
    """Mean power at the load of a configuration.

    Attributes:
        level: "E3" at the wall, "E2" on the chip (MEASUREMENT 4).
        per_joule: Items per joule, where the cell's own energy was read.
        source: Who read it.
    """

    watts: Interval
    level: str
    source: str
    per_joule: Interval | None = None


def power_of(energy: Energy | None, batch: int, given: Watts | None) -> Power | None:
    """Return the power of a configuration, ``None`` where nobody measured it.

    Args:
        energy: As it was read with the cell.
        batch: Items of an inference.
        given: From the prices file.
    """
    own = _own(energy, batch)
    if given is None or (own is not None and own.level >= given.level):
        return own
    return Power(Interval(given.mean, given.low, given.high, 0.95, given.source), given.level, given.source)


def _own(energy: Energy | None, batch: int) -> Power | None:
    if energy is None or energy.watts is None or energy.joules is None or energy.level not in {"E2", "E3"}:
        return None
    each = energy.joules
    low = batch / each.high if each.high else None
    high = batch / each.low if each.low else None
    items = Interval(batch / each.point, low, high, each.level, each.method)
    return Power(energy.watts, energy.level, f"{energy.source}, read with the cell", items)


def doubts(offers: Sequence[Offer]) -> Iterable[str]:
    """Say, a sentence each, what the powers leave open: levels do not compare, and a chip is not a machine."""
    levels: dict[str, list[str]] = {}
    for offer in offers:
        if offer.power is not None:
            levels.setdefault(offer.power.level, []).append(offer.unit)
    if len(levels) > 1:
        named = "; ".join(f"{level}: {', '.join(units)}" for level, units in sorted(levels.items()))
        yield f"watts of different levels do not compare ({named})"
    for unit in levels.get("E2", ()):
        yield f"{unit}: its power is that of the chip (E2), without fans, disks and power supply: it costs more"
