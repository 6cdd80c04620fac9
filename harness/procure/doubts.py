"""What a table of offers does not decide, and where its prices come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.procure import power
from harness.procure.cost import Case, changed, total_cost
from harness.procure.prices import Prices
from harness.procure.values import Offer

UNITS_OF_A_SKU = 3  # physical units before anything is said of the SKU (MEASUREMENT 1.4 h)


def undecided(offers: Sequence[Offer], cases: Mapping[str, Case], prices: Prices) -> Iterable[str]:
    """Say, a sentence each, what neither the measurements nor the prices decide."""
    for offer in offers:
        if offer.best is None:
            yield f"{offer.unit}: no configuration qualifies ({offer.reason})"
            continue
        yield from (f"{offer.unit}, {offer.best.name}: {doubt}" for doubt in offer.best.doubts)
        if offer.rivals:
            yield f"{offer.unit}: as fast within the evidence: {', '.join(offer.rivals)}"
        if offer.price is None:
            yield f"{offer.unit}: no price is given, so no cost"
        elif not offer.price.rented and offer.watts is None:
            yield f"{offer.unit}: its power was not measured, so its cost is without energy, and it has no perf/W"
        elif not offer.price.rented and prices.electricity is None:
            yield f"{offer.unit}: no price of electricity is given, so its cost is without energy"
    yield from power.doubts(offers)
    yield from _choice(offers, cases)
    yield from _skus(offers)


def _choice(offers: Sequence[Offer], cases: Mapping[str, Case]) -> Iterable[str]:
    """Say whether the cheapest unit is the cheapest within the intervals and under every assumption."""
    full = [offer for offer in offers if offer.cost is not None]
    partly = [offer.unit for offer in offers if offer.cost is None and offer.machine is not None]
    if full and partly:
        yield f"costs with energy and without ({', '.join(partly)}) do not compare"
    if len(full) < 2:
        return
    ranked = sorted(full, key=lambda offer: offer.cost.point if offer.cost else 0.0)
    first, rest = ranked[0], ranked[1:]
    for other in rest:
        mine, theirs = first.cost, other.cost
        if mine and theirs and (mine.high is None or theirs.low is None or mine.high >= theirs.low):
            yield f"the intervals of cost of {first.unit} and {other.unit} overlap: the evidence does not decide"
        for factor, value in _flips(cases[first.unit], cases[other.unit]):
            yield f"{other.unit} is cheaper than {first.unit} with {factor} at {value:.3g}: the assumption decides"


def _flips(first: Case, second: Case) -> Iterable[tuple[str, float]]:
    """Yield the assumptions, 50 % off, that turn the order round when they hold for both."""
    base = first.assumptions
    values = {
        "utilisation": (base.utilisation * 0.5, min(1.0, base.utilisation * 1.5)),
        "years": (base.years * 0.5, base.years * 1.5),
        "price per kWh": (first.kwh * 0.5, first.kwh * 1.5) if first.kwh is not None else (),
    }
    for factor, ends in values.items():
        for value in ends:
            mine, theirs = total_cost(changed(first, factor, value)), total_cost(changed(second, factor, value))
            if mine is not None and theirs is not None and theirs < mine:
                yield factor, value


def _skus(offers: Sequence[Offer]) -> Iterable[str]:
    for sku in sorted({offer.sku for offer in offers}):
        real = [offer for offer in offers if offer.sku == sku and not offer.stand_in]
        stand_ins = [offer.unit for offer in offers if offer.sku == sku and offer.stand_in]
        if stand_ins:
            yield f"{', '.join(stand_ins)} only stand in for machines: nothing follows for a purchase"
        rates = [offer.best.throughput.point for offer in real if offer.best]
        if len(real) >= UNITS_OF_A_SKU and len(rates) == len(real):
            worst = min(real, key=lambda offer: offer.best.throughput.point if offer.best else 0.0)
            low, high = min(rates), max(rates)
            promise = f"promise what {worst.unit} does, {low:.4g} items/s"
            yield f"{sku}: {len(real)} units differ by {high / low - 1:.0%}; {promise}"
        elif real:
            yield f"{sku}: {len(real)} of the {UNITS_OF_A_SKU} units that a statement about the model needs"


def sources(prices: Prices, offers: Sequence[Offer] = ()) -> Iterable[str]:
    """Return where each price and each power comes from."""
    for unit, price in prices.hosts.items():
        amount = f"{price.price_per_hour if price.rented else price.capex} {price.currency}"
        amount += " an hour" if price.rented else ""
        extra = ", ".join(text for text in (price.region, price.commitment) if text)
        yield f"{unit}: {amount}{f' ({extra})' if extra else ''}, {price.source}, {price.date}"
        if price.watts:
            watts = price.watts
            yield f"{unit}: {watts.mean} W, level {watts.level}, {watts.source}, {watts.date}"
    for offer in offers:
        if offer.power is not None and offer.power.per_joule is not None:
            yield f"{offer.unit}: {offer.power.watts.point:.4g} W, level {offer.power.level}, {offer.power.source}"
    if prices.electricity:
        bill = prices.electricity
        yield f"electricity: {bill.price_per_kwh} {bill.currency}/kWh, {bill.source}, {bill.date}"
