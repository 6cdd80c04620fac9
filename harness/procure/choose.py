"""Per unit the best configuration that keeps the limits, what it costs, and where the evidence does not decide."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.errors import PlanError
from harness.leaderboard.rows import runs_no_model
from harness.params import suggest
from harness.procure.cost import Case, break_even, spread, tornado
from harness.procure.doubts import sources, undecided
from harness.procure.limits import Floor, Held, Slo, hold_floor, hold_slo, throughput_of
from harness.procure.power import power_of
from harness.procure.prices import Prices
from harness.procure.values import Configuration, Offer, Procurement
from harness.store import Run
from harness.store.units import Unit, read_unit, sku_of
from harness.types import SCHEMA, Interval, Record


def procure(
    runs: Sequence[Run],
    *,
    workload: str,
    slo: Slo | None,
    accuracy: Floor | None,
    prices: Prices,
) -> Procurement:
    """Find for each unit the qualified configuration with the highest throughput, and what it costs.

    Args:
        runs: All units' runs.
        workload: The workload's text.
        slo: Latency limit; ``None`` for none.
        accuracy: Least accuracy; ``None`` for none.
        prices: What is known of prices and power.

    Raises:
        PlanError: No record has this workload, or the prices name a unit that is not there.
    """
    by_unit: dict[str, list[Run]] = {}
    for run in runs:
        by_unit.setdefault(run.unit, []).append(run)
    _check(runs, workload, by_unit, prices)
    offers = [_offer(unit, by_unit[unit], workload, slo, accuracy, prices) for unit in sorted(by_unit)]
    cases = {offer.unit: case for offer in offers if (case := _case(offer, prices)) is not None}
    pairs = itertools.combinations(cases.items(), 2)
    evens = [even for first, second in pairs if (even := break_even(first, second)) is not None]
    return Procurement(
        schema=SCHEMA,
        workload=workload,
        slo=slo.text if slo else "",
        accuracy=accuracy.text if accuracy else "",
        currency=next((price.currency for price in prices.hosts.values()), ""),
        assumptions=prices.assumptions,
        kwh=prices.electricity.price_per_kwh if prices.electricity else None,
        offers=tuple(sorted(offers, key=_order)),
        break_evens=tuple(evens),
        undecided=tuple(undecided(offers, cases, prices)),
        sources=tuple(sources(prices, offers)),
        problems=tuple(f"{run.path.name}/{item.file}: {item.what}" for run in runs for item in run.problems),
    )


def _check(runs: Sequence[Run], workload: str, units: Iterable[str], prices: Prices) -> None:
    known = sorted({record.labels.get("workload", record.cell.workload.name) for run in runs for record in run.records})
    if workload not in known:
        raise PlanError(f"no record has the workload {workload!r}", hint=suggest(workload, known, "workload"))
    strangers = sorted(set(prices.hosts) - set(units))
    if strangers:
        hint = suggest(strangers[0], sorted(units), "unit")
        raise PlanError(f"the prices name {strangers[0]!r}, which no run was measured on", hint=hint)


def _order(offer: Offer) -> tuple[bool, float, float]:
    cost = offer.cost or offer.machine
    rate = offer.best.throughput.point if offer.best else 0.0
    return offer.best is None, cost.point if cost else float("inf"), -rate


def _offer(
    unit: str,
    runs: Sequence[Run],
    workload: str,
    slo: Slo | None,
    accuracy: Floor | None,
    prices: Prices,
) -> Offer:
    cells = _newest(runs, workload)
    found = [_configuration(unit, run, record, slo, accuracy) for run, record in cells]
    fit = sorted((item for item in found if not item.out), key=lambda item: -item.throughput.point)
    labels = read_unit(runs[-1].path.parent) or Unit(SCHEMA, unit, "", sku_of(_facts(runs)))
    base = Offer(unit, labels.sku, labels.stand_in, len(found), fit[0] if fit else None)
    if not fit:
        return Offer(unit, labels.sku, labels.stand_in, len(found), None, _why_none(found))
    rivals = tuple(item.name for item in fit[1:] if _overlap(item.throughput, fit[0].throughput))
    return _priced(base, fit[0], rivals, prices)


def _facts(runs: Sequence[Run]) -> Mapping[str, str]:
    return next((run.info.host_facts for run in runs if run.info), {})


def _newest(runs: Sequence[Run], workload: str) -> list[tuple[Run, Record]]:
    kept: dict[str, tuple[Run, Record]] = {}
    for run in runs:
        for record in run.records:
            named = record.labels.get("workload", record.cell.workload.name)
            usable = record.status == "ok" and record.kind == "measured" and record.latency is not None
            if named == workload and usable and not runs_no_model(record):
                older = kept.get(record.cell_id)
                if older is None or older[1].finished_utc <= record.finished_utc:
                    kept[record.cell_id] = run, record
    return list(kept.values())


def _configuration(unit: str, run: Run, record: Record, slo: Slo | None, accuracy: Floor | None) -> Configuration:
    options = record.cell.options
    launches = [
        launch
        for item in run.sets_of(record)
        for launch in item.launches
        if launch.cell_id == record.cell_id and not launch.discarded and any(batch.ns for batch in launch.batches)
    ]
    name = f"{record.labels.get('method', '')} on {record.labels.get('target', '')}"
    missing = Held("not known", None, "its raw samples are missing")
    return Configuration(
        unit=unit,
        name=f"{name} · {options.threads} thr · batch {options.batch}",
        cell_id=record.cell_id,
        run=run.path.name,
        throughput=throughput_of(launches) if launches else Interval(0.0, None, None),
        noise=record.latency.noise if record.latency else "noisy",
        slo=missing if not launches else hold_slo(launches, slo) if slo else None,
        accuracy=hold_floor(record.quality, accuracy) if accuracy else None,
        batch=options.batch,
        energy=record.energy,
    )


def _why_none(found: Sequence[Configuration]) -> str:
    if not found:
        return "nothing was measured"
    reasons = [item.out for item in found]
    counted = [f"{reasons.count(text)} of {len(reasons)}: {text}" for text in dict.fromkeys(reasons)]
    return "; ".join(counted)


def _overlap(first: Interval, second: Interval) -> bool:
    if first.high is None or second.low is None:
        return True
    return first.high >= second.low


def _priced(offer: Offer, best: Configuration, rivals: tuple[str, ...], prices: Prices) -> Offer:
    price = prices.hosts.get(offer.unit)
    power = power_of(best.energy, best.batch, price.watts if price else None)
    watts = power.watts if power else None
    rate = best.throughput
    per_watt = (power.per_joule or _per(rate, power.watts)) if power else None
    offer = replace(offer, rivals=rivals, price=price, watts=watts, per_watt=per_watt, power=power)
    if price is None:
        return offer
    case = Case(price, prices.assumptions, rate.point, watts.point if watts else None, _kwh(prices))
    bounds = _bounds(watts)
    cost = spread(case, rate, bounds)
    return replace(
        offer,
        cost=cost,
        machine=spread(case, rate, None, "machine"),
        per_currency=_inverse(cost),
        bars=tuple(tornado(case, rate, bounds)),
    )


def _kwh(prices: Prices) -> float | None:
    return prices.electricity.price_per_kwh if prices.electricity else None


def _bounds(watts: Interval | None) -> tuple[float, float] | None:
    if watts is None or watts.low is None or watts.high is None:
        return None
    return watts.low, watts.high


def _per(rate: Interval, watts: Interval) -> Interval:
    """Return items per second and watt, which are items per joule."""
    low = None if rate.low is None else rate.low / (watts.high or watts.point)
    high = None if rate.high is None else rate.high / (watts.low or watts.point)
    return Interval(rate.point / watts.point, low, high, rate.level, rate.method)


def _inverse(cost: Interval | None) -> Interval | None:
    """Return inferences for one unit of currency."""
    if cost is None:
        return None
    low = None if cost.high is None else 1e6 / cost.high
    high = None if cost.low is None else 1e6 / cost.low
    return Interval(1e6 / cost.point, low, high, cost.level, cost.method)


def _case(offer: Offer, prices: Prices) -> Case | None:
    if offer.best is None or offer.price is None:
        return None
    watts = offer.watts.point if offer.watts else None
    return Case(offer.price, prices.assumptions, offer.best.throughput.point, watts, _kwh(prices))
