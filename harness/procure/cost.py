"""What a million inferences cost (MEASUREMENT 4): pure arithmetic, with every assumption an argument.

Bought: C = 1e6 [ capex (1 - r) / (8760 L u) + capex o / (8760 u) + P PUE p ] / (3600 Q), with capex the price, r the
residual share, L years, u utilisation, o the yearly opex share, P kilowatts, p the price of a kilowatt-hour and Q
inferences a second within the limit. Rented: C = 1e6 h / (3600 Q u), with h the price of an hour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.procure.prices import Assumptions, Price
from harness.types import Interval

HOURS = 8760.0  # of a year
MILLION = 1e6
SWING = 0.5  # of the tornado, each way


@dataclass(frozen=True)
class Case:
    """Everything that the cost of one configuration on one unit follows from.

    Attributes:
        throughput: Items per second within the limit.
        watts: Mean wall power; ``None`` where it was not measured.
        kwh: Price of a kilowatt-hour; ``None`` where none is given.
    """

    price: Price
    assumptions: Assumptions
    throughput: float
    watts: float | None
    kwh: float | None


def machine_cost(case: Case) -> float:
    """Return what the machine itself costs for a million inferences, without energy (rented: with it)."""
    a, price = case.assumptions, case.price
    if price.price_per_hour is not None:
        return MILLION * price.price_per_hour / (3600 * case.throughput * a.utilisation)
    capex = price.capex or 0.0
    hourly = capex * (1 - a.residual) / (HOURS * a.years * a.utilisation) + capex * a.opex / (HOURS * a.utilisation)
    return MILLION * hourly / (3600 * case.throughput)


def energy_cost(case: Case) -> float | None:
    """Return what the energy of a million inferences costs; 0 where the rent holds it, ``None`` where not known."""
    if case.price.rented:
        return 0.0
    if case.watts is None or case.kwh is None:
        return None
    return MILLION * case.watts / 1000 * case.assumptions.pue * case.kwh / (3600 * case.throughput)


def total_cost(case: Case) -> float | None:
    """Return the cost of a million inferences; ``None`` where its energy is not known."""
    energy = energy_cost(case)
    return None if energy is None else machine_cost(case) + energy


def fixed_cost(case: Case) -> float:
    """Return what is paid whatever the volume: price less residual, and opex over the years; 0 where rented."""
    if case.price.rented:
        return 0.0
    a, capex = case.assumptions, case.price.capex or 0.0
    return capex * (1 - a.residual) + capex * a.opex * a.years


def marginal_cost(case: Case) -> float | None:
    """Return what one more million inferences costs: energy, or the hours of a rented machine."""
    return machine_cost(case) if case.price.rented else energy_cost(case)


def capacity(case: Case) -> float:
    """Return how many inferences the unit makes in its years at its utilisation."""
    return case.throughput * 3600 * HOURS * case.assumptions.years * case.assumptions.utilisation


def spread(case: Case, throughput: Interval, watts: tuple[float, float] | None, cost: str = "total") -> Interval | None:
    """Return a cost with the interval that throughput's and power's intervals give it.

    The bounds take the worst of both at once: they are at least as wide as either's level says.

    Args:
        case: At the point estimates.
        throughput: Items per second.
        watts: Bounds of the mean power, where they are known.
        cost: "total", or "machine" for the part without energy.
    """
    price = total_cost if cost == "total" else machine_cost
    point = price(case)
    if point is None:
        return None
    if throughput.low is None or throughput.high is None or not throughput.low > 0:
        return Interval(point, None, None, throughput.level, f"none: {throughput.method}")
    cool, hot = watts or (case.watts, case.watts)
    low = price(replace(case, throughput=throughput.high, watts=cool))
    high = price(replace(case, throughput=throughput.low, watts=hot))
    return Interval(point, low, high, throughput.level, "from the intervals of throughput and power")


@dataclass(frozen=True)
class Bar:
    """One assumption of the tornado: the cost at its low and at its high value."""

    factor: str
    low: float
    high: float
    cost_low: float
    cost_high: float

    @property
    def swing(self) -> float:
        """How far the cost moves."""
        return abs(self.cost_high - self.cost_low)


def changed(case: Case, factor: str, value: float) -> Case:
    """Return the case with one of "utilisation", "years", "price per kWh", "throughput", "watts" set to a value."""
    if factor == "utilisation":
        return replace(case, assumptions=replace(case.assumptions, utilisation=value))
    if factor == "years":
        return replace(case, assumptions=replace(case.assumptions, years=value))
    if factor == "throughput":
        return replace(case, throughput=value)
    return replace(case, kwh=value) if factor == "price per kWh" else replace(case, watts=value)


def tornado(case: Case, throughput: Interval, watts: tuple[float, float] | None) -> list[Bar]:
    """Return how the cost moves with each assumption by 50 % either way, and within the measured intervals.

    The largest swing comes first. Utilisation ends at 1. Where the energy is not known, the machine's cost moves.
    """
    use, years = case.assumptions.utilisation, case.assumptions.years
    ranges: dict[str, tuple[float, float]] = {"utilisation": (use * (1 - SWING), min(1.0, use * (1 + SWING)))}
    if not case.price.rented:
        ranges["years"] = years * (1 - SWING), years * (1 + SWING)
    if case.kwh is not None and energy_cost(case):
        ranges["price per kWh"] = case.kwh * (1 - SWING), case.kwh * (1 + SWING)
    if throughput.low is not None and throughput.high is not None:
        ranges["throughput"] = throughput.low, throughput.high
    if watts is not None and energy_cost(case):
        ranges["watts"] = watts
    price = total_cost if total_cost(case) is not None else machine_cost
    bars = [
        Bar(name, low, high, price(changed(case, name, low)) or 0.0, price(changed(case, name, high)) or 0.0)
        for name, (low, high) in ranges.items()
    ]
    return sorted(bars, key=lambda bar: -bar.swing)


@dataclass(frozen=True)
class BreakEven:
    """The volume from which ``above`` is the cheaper one.

    Attributes:
        inferences: ``None`` where one is cheaper at every volume: then it is ``above``.
        reachable: One unit of each makes that many in its years.
    """

    below: str
    above: str
    inferences: float | None
    reachable: bool = True


def break_even(first: tuple[str, Case], second: tuple[str, Case]) -> BreakEven | None:
    """Return where two units cost the same in total; ``None`` where a marginal cost is not known."""
    (name, case), (other, rival) = first, second
    mine, theirs = marginal_cost(case), marginal_cost(rival)
    if mine is None or theirs is None:
        return None
    fixed, marginal = fixed_cost(case) - fixed_cost(rival), (theirs - mine) / MILLION
    if fixed <= 0 <= marginal:
        return BreakEven(other, name, None)
    if marginal <= 0 <= fixed:
        return BreakEven(name, other, None)
    volume = fixed / marginal
    dear, cheap = (name, other) if fixed > 0 else (other, name)
    return BreakEven(cheap, dear, volume, volume <= min(capacity(case), capacity(rival)))
