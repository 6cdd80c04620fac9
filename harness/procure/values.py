"""What a procurement comes to: frozen values, JSON out."""

from __future__ import annotations

from dataclasses import dataclass

from harness.procure.cost import Bar, BreakEven
from harness.procure.limits import Held
from harness.procure.power import Power
from harness.procure.prices import Assumptions, Price
from harness.types import Energy, Interval


@dataclass(frozen=True)
class Configuration:
    """One measured cell of a unit, held against the limits."""

    unit: str
    name: str
    cell_id: str
    run: str
    throughput: Interval
    noise: str
    slo: Held | None = None
    accuracy: Held | None = None
    batch: int = 1
    energy: Energy | None = None

    @property
    def out(self) -> str:
        """Why it does not qualify; empty where it does."""
        for held in (self.slo, self.accuracy):
            if held is not None and held.kept in {"no", "not known"}:
                return held.reason if held.kept == "not known" else "over the limit" if held is self.slo else "too low"
        return ""

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the evidence leaves open."""
        found = [held.reason for held in (self.slo, self.accuracy) if held is not None and held.kept == "by estimate"]
        if self.noise != "ok":
            found.append(f"its host was {self.noise}: absolute figures are disturbed")
        return tuple(found)


@dataclass(frozen=True)
class Offer:
    """What one unit has to offer.

    Attributes:
        best: ``None`` where no configuration qualifies; ``reason`` says why.
        rivals: Configurations whose throughput the evidence does not tell from the best one's.
        watts: Measured mean power; ``None`` where it was not measured.
        power: The same with its level and source.
        cost: Of a million inferences; ``None`` without a price, or without watts or the price of energy.
        machine: The part of it that is known without watts.
        per_watt: Items per joule.
        per_currency: Inferences for one unit of currency.
    """

    unit: str
    sku: str
    stand_in: str
    measured: int
    best: Configuration | None
    reason: str = ""
    rivals: tuple[str, ...] = ()
    price: Price | None = None
    watts: Interval | None = None
    cost: Interval | None = None
    machine: Interval | None = None
    per_watt: Interval | None = None
    per_currency: Interval | None = None
    bars: tuple[Bar, ...] = ()
    power: Power | None = None


@dataclass(frozen=True)
class Procurement:
    """The table and what it does not decide."""

    schema: int
    workload: str
    slo: str
    accuracy: str
    currency: str
    assumptions: Assumptions
    kwh: float | None
    offers: tuple[Offer, ...]
    break_evens: tuple[BreakEven, ...]
    undecided: tuple[str, ...]
    sources: tuple[str, ...]
    problems: tuple[str, ...] = ()
