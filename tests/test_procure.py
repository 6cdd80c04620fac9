from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import records

from harness.cli.main import call
from harness.errors import PlanError
from harness.procure import Prices, parse_floor, parse_slo, procure, read_prices
from harness.procure.cost import (
    Case,
    break_even,
    capacity,
    energy_cost,
    fixed_cost,
    machine_cost,
    marginal_cost,
    spread,
    tornado,
    total_cost,
)
from harness.procure.limits import hold_floor, hold_slo, throughput_of
from harness.procure.prices import Assumptions, Electricity, Price, Watts
from harness.procure.render import markdown, svg, to_csv
from harness.store import load_run
from harness.store.merge import Source, merge, twins
from harness.store.units import read_unit
from harness.types import Interval

ROOT = Path(__file__).parents[1]
REFERENCE = next((ROOT / "results" / "reference").glob("*/2*"))
OWNED = Price("EUR", "quote", "2026-11-01", capex=1752.0, watts=Watts(100.0, "E3", "meter", "2026-11-01", 90.0, 110.0))
RENTED = Price("EUR", "list", "2026-11-01", price_per_hour=0.09)


def case(price: Price = OWNED, **changes) -> Case:
    base = Case(price, Assumptions(), 100.0, 100.0 if price.watts else None, 0.25)
    return replace(base, **changes)


def test_the_cost_of_a_million_by_hand():
    # 4 years at 50 %: 17520 hours; 1752 / 17520 = 0.10 an hour; opex 5 %: 87.6 / 4380 h = 0.02 an hour
    # energy: 0.1 kW x 1.3 x 0.25 = 0.0325 an hour; 100 items/s are 360 000 an hour
    assert machine_cost(case()) == pytest.approx(1e6 * 0.12 / 360_000) == pytest.approx(1 / 3)
    assert energy_cost(case()) == pytest.approx(1e6 * 0.0325 / 360_000)
    assert total_cost(case()) == pytest.approx(0.1525 / 0.36)
    # rented: 0.09 an hour at 50 % use is 0.18 for 360 000
    assert total_cost(case(RENTED)) == pytest.approx(0.5)
    assert energy_cost(case(RENTED)) == 0.0


def test_the_formula_as_it_stands_in_the_protocol():
    a = Assumptions(years=3, utilisation=0.7, residual=0.1, opex=0.04, pue=1.2)
    c, hours, q = 5000.0, 8760, 250.0
    by_hand = 1e6 * ((c * (1 - 0.1) / (3 * hours * 0.7)) + c * 0.04 / hours / 0.7 + 0.3 * 1.2 * 0.3) / (3600 * q)
    assert total_cost(Case(replace(OWNED, capex=c), a, q, 300.0, 0.3)) == pytest.approx(by_hand, rel=1e-12)


def test_nothing_missing_is_estimated():
    assert total_cost(case(watts=None)) is None
    assert total_cost(case(kwh=None)) is None
    assert spread(case(watts=None), Interval(100.0, 90.0, 110.0), None) is None
    assert machine_cost(case(watts=None)) == pytest.approx(1 / 3)


def test_the_interval_of_the_cost_takes_both_ends():
    found = spread(case(), Interval(100.0, 80.0, 125.0), (90.0, 110.0))
    assert found.low == pytest.approx(total_cost(case(throughput=125.0, watts=90.0)))
    assert found.high == pytest.approx(total_cost(case(throughput=80.0, watts=110.0)))
    assert spread(case(), Interval(100.0, None, None), None).low is None


def test_the_tornado_is_the_cost_at_each_end_largest_first():
    found = tornado(case(), Interval(100.0, 95.0, 105.0), (90.0, 110.0))
    bars = {bar.factor: bar for bar in found}
    assert set(bars) == {"utilisation", "years", "price per kWh", "throughput", "watts"}
    assert bars["utilisation"].cost_low == pytest.approx((0.24 + 0.0325) / 0.36)  # half the use doubles the machine
    assert bars["utilisation"].cost_high == pytest.approx((0.08 + 0.0325) / 0.36)
    assert bars["years"].cost_low == pytest.approx((0.20 + 0.02 + 0.0325) / 0.36)
    assert bars["price per kWh"].cost_high == pytest.approx((0.12 + 0.0325 * 1.5) / 0.36)
    assert [bar.swing for bar in found] == sorted((bar.swing for bar in found), reverse=True)
    assert {bar.factor for bar in tornado(case(RENTED), Interval(100.0, 95.0, 105.0), None)} == {
        "utilisation",
        "throughput",
    }


def test_break_even_by_hand():
    # bought: 1752 + 4 x 87.6 = 2102.4 fixed and 0.0325 / 0.36 a million; rented: 0.5 a million
    assert fixed_cost(case()) == pytest.approx(2102.4)
    volume = 2102.4 / (0.5 - 0.0325 / 0.36) * 1e6
    found = break_even(("bought", case()), ("rented", case(RENTED)))
    assert found.inferences == pytest.approx(volume)
    assert (found.below, found.above) == ("rented", "bought")
    assert found.reachable == (volume <= capacity(case()))
    other = break_even(("rented", case(RENTED)), ("bought", case()))
    assert (other.below, other.above, other.inferences) == ("rented", "bought", pytest.approx(volume))
    # at that volume both have cost the same
    bought = fixed_cost(case()) + marginal_cost(case()) * volume / 1e6
    assert bought == pytest.approx(marginal_cost(case(RENTED)) * volume / 1e6)
    assert break_even(("a", case(watts=None)), ("b", case(RENTED))) is None
    dear = break_even(("dear", case(replace(OWNED, capex=9000.0))), ("cheap", case()))
    assert (dear.above, dear.inferences) == ("cheap", None)


def launches(ms: float = 3.0, iterations: int = 40, sets: int = 6, **changes):
    made = [
        records.launch_set("g", index, {"x": ms}, anchor=None, rounds=4, iterations=iterations, **changes)
        for index in range(sets)
    ]
    return [launch for item in made for launch in item.launches]


def test_a_percentile_needs_its_support():
    few = hold_slo(launches(iterations=20), parse_slo("p99<10ms"))  # 480 of 662
    assert few.kept == "not known"
    assert "662" in few.reason
    assert hold_slo(launches(iterations=20), parse_slo("p90<10ms")).kept == "yes"
    enough = hold_slo(launches(iterations=40), parse_slo("p99<10ms"))
    assert enough.kept == "yes"
    assert 3e6 < enough.value.low <= enough.value.point <= enough.worst < 3.2e6


def test_a_limit_within_the_interval_is_kept_by_estimate_only():
    found = throughput_of(launches())
    assert found.point == pytest.approx(1000 / 3, rel=0.03)
    value = hold_slo(launches(), parse_slo("p50<10ms")).value
    between = (value.point + value.high) / 2e6
    assert hold_slo(launches(), parse_slo(f"p50<{between:.6f}ms")).kept == "by estimate"
    assert hold_slo(launches(), parse_slo("p50<2.5ms")).kept == "no"
    assert hold_slo(launches(sets=3), parse_slo("p50<10ms")).kept == "by estimate"  # 3 launches carry no interval


def test_accuracy_floors_are_shares_of_the_anchor_or_values():
    quality = records.quality(0.98, 0.01)  # anchor 0.99; interval of the difference -0.017 to -0.004
    held = hold_floor(quality, parse_floor(">=99%"))
    assert held.kept == "no"
    assert held.value.point == pytest.approx(0.98 / 0.99)
    assert hold_floor(quality, parse_floor(">=98.5%")).kept == "by estimate"
    assert hold_floor(quality, parse_floor(">=95%")).kept == "yes"
    assert hold_floor(quality, parse_floor(">=98")).kept == "by estimate"
    assert hold_floor(quality, parse_floor(">=98.1")).kept == "no"
    assert hold_floor(records.quality(), parse_floor(">=99.9%")).kept == "yes"  # the anchor itself
    assert hold_floor(None, parse_floor(">=1%")).kept == "not known"
    worse = hold_floor(records.rmse(55.0, 1.0), parse_floor(">=99%"))  # 54 / 55 of a metric that is better when lower
    assert worse.value.point == pytest.approx(54 / 55)
    assert worse.kept == "no"
    assert hold_floor(records.rmse(55.0, 1.0), parse_floor(">=50")).kept == "no"


@pytest.mark.parametrize("text", ["p99", "p99>10ms", "p10<1ms", "p99<10", "fast", "p100<1ms"])
def test_a_limit_that_cannot_be_meant_is_refused(text):
    with pytest.raises(PlanError):
        parse_slo(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[hosts.a]\ncapex = 1\n", "currency"),
        ('[hosts.a]\ncapex = 1\ncurrency = "EUR"\nsource = ""\ndate = 2026-01-01\n', "source"),
        ('[hosts.a]\ncurrency = "EUR"\nsource = "x"\ndate = 2026-01-01\n', "one of them"),
        ('[hosts.a]\ncapx = 1\ncurrency = "EUR"\nsource = "x"\ndate = 2026-01-01\n', "has no 'capx'"),
        ('[hosts.a]\ncapex = -1\ncurrency = "EUR"\nsource = "x"\ndate = 2026-01-01\n', "not above 0"),
        ("[assumptions]\nutilisation = 0\n", "utilisation"),
        ("hosts = [", "no TOML"),
        (
            (
                '[hosts.a]\ncapex=1\ncurrency="EUR"\nsource="x"\ndate="d"\n'
                'watts={mean=65,level="E1",source="data sheet",date="d"}\n'
            ),
            "E1",
        ),
        (
            (
                '[hosts.a]\ncapex=1\ncurrency="EUR"\nsource="x"\ndate="d"\n'
                '[hosts.b]\ncapex=1\ncurrency="USD"\nsource="x"\ndate="d"\n'
            ),
            "mixes currencies",
        ),
    ],
)
def test_prices_that_cannot_be_trusted_are_refused(tmp_path, text, reason):
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(PlanError, match=reason):
        read_prices(tmp_path / "prices.toml")


def fleet(**names: float):
    """A run for each unit, whose int8 takes so many milliseconds; p99 has its support."""
    runs = []
    for unit, ms in names.items():
        made = [records.record(), records.record("int8"), records.record("binarization")]
        times = dict(zip((item.cell_id for item in made), (2 * ms, ms, 0.5 * ms), strict=True))
        sets = tuple(records.launch_set("g", index, times, anchor=made[0].cell_id, iterations=40) for index in range(6))
        listed = tuple(f"g-{index:05d}" for index in range(6))
        wrong = records.quality(0.90, 0.09)
        made = [replace(item, sets=listed) for item in made]
        made[2] = replace(made[2], quality=wrong)
        run = records.run_of(tuple(made), sets, host_name=unit)
        runs.append(replace(run, path=Path(f"results/{unit}/run")))
    return runs


def test_the_best_configuration_keeps_both_limits():
    (run,) = fleet(box=4.0)
    found = procure(
        [run], workload=records.WORKLOAD, slo=parse_slo("p99<10ms"), accuracy=parse_floor(">=99%"), prices=Prices()
    )
    (offer,) = found.offers
    assert offer.best.name.startswith("int8 on onnxruntime")  # binarization is faster, and too wrong
    assert offer.best.throughput.point == pytest.approx(250, rel=0.03)
    assert (offer.cost, offer.machine, offer.per_watt) == (None, None, None)
    assert any("no price is given" in text for text in found.undecided)
    none = procure(
        [run], workload=records.WORKLOAD, slo=parse_slo("p99<1ms"), accuracy=parse_floor(">=99%"), prices=Prices()
    )
    assert none.offers[0].best is None
    assert "over the limit" in none.offers[0].reason


def test_a_target_that_runs_no_model_is_no_offer():
    (run,) = fleet(box=4.0)
    modelless = tuple(replace(item, flags=(*item.flags, "runs_no_model")) for item in run.records)
    found = procure(
        [replace(run, records=modelless)], workload=records.WORKLOAD, slo=None, accuracy=None, prices=Prices()
    )
    assert (found.offers[0].best, found.offers[0].measured) == (None, 0)


def priced(tmp_path: Path, runs, extra: str = "") -> Prices:
    fast, slow = sorted(run.unit for run in runs)
    text = f"""
[electricity]
price_per_kwh = 0.25
currency = "EUR"
source = "contract"
date = 2026-11-01
[hosts.{fast}]
capex = 1752
currency = "EUR"
source = "quote"
date = 2026-11-01
watts = {{ mean = 100, low = 90, high = 110, level = "E3", source = "meter", date = 2026-11-01 }}
[hosts.{slow}]
price_per_hour = 0.09
currency = "EUR"
source = "list"
date = 2026-11-01
{extra}"""
    (tmp_path / "prices.toml").write_text(text)
    return read_prices(tmp_path / "prices.toml")


def test_the_table_says_what_the_arithmetic_says(tmp_path):
    runs = fleet(abox=10.0, zbox=10.0)
    found = procure(
        runs, workload=records.WORKLOAD, slo=parse_slo("p99<11ms"), accuracy=None, prices=priced(tmp_path, runs)
    )
    rates = {offer.unit: offer.best.throughput for offer in found.offers}
    bought = next(offer for offer in found.offers if offer.unit.startswith("abox"))
    rented = next(offer for offer in found.offers if offer.unit.startswith("zbox"))
    rate = rates[bought.unit]
    assert bought.cost.point == pytest.approx(1e6 * 0.1525 / (3600 * rate.point))
    assert bought.cost.low == pytest.approx(1e6 * (0.12 + 0.0325 * 0.9) / (3600 * rate.high))
    assert bought.per_watt.point == pytest.approx(rate.point / 100)
    assert bought.per_currency.point == pytest.approx(1e6 / bought.cost.point)
    assert rented.cost.point == pytest.approx(1e6 * 0.18 / (3600 * rates[rented.unit].point))
    assert rented.per_watt is None
    (even,) = found.break_evens
    own = bought.best.throughput.point, rented.best.throughput.point
    volume = 2102.4 / (0.18 / (3600 * own[1]) - 0.0325 / (3600 * own[0]))
    assert even.inferences == pytest.approx(volume)
    assert any("cheaper than" in text and "the assumption decides" in text for text in found.undecided)
    text = markdown(found)
    assert "quote, 2026-11-01" in text
    assert "utilisation 50%" in text
    assert ElementTree.fromstring(svg(found)).tag.endswith("svg")


def test_hostile_names_are_harmless_in_every_format(tmp_path):
    hostile = '=cmd()|<script>alert(1)</script>\n\u202e"&'
    (run,) = fleet(box=4.0)
    named = tuple(replace(item, labels={**item.labels, "method": hostile}) for item in run.records)
    found = procure([replace(run, records=named)], workload=records.WORKLOAD, slo=None, accuracy=None, prices=Prices())
    found = replace(found, currency=hostile, undecided=(hostile,), sources=(hostile,))
    found = replace(found, offers=tuple(replace(offer, unit=hostile) for offer in found.offers))
    for text in (markdown(found), svg(found)):
        assert "<script" not in text
        assert "\u202e" not in text
    line = list(csv.reader(io.StringIO(to_csv(found))))[1]
    assert line[0].startswith("'=cmd()")
    assert not any(item.startswith(("=", "@")) for item in line)


def copied(tmp_path: Path, name: str) -> Path:
    target = tmp_path / name / REFERENCE.parent.name / REFERENCE.name
    shutil.copytree(REFERENCE, target)
    return target


def test_merge_keeps_units_apart_and_refuses_what_fails_by_name(tmp_path):
    good, flipped, future = (copied(tmp_path, name) for name in ("good", "flipped", "future"))
    first, second = sorted((flipped / "cells").glob("*.json"))[:2]
    raw = bytearray(first.read_bytes())
    raw[len(raw) // 2] ^= 1
    first.write_bytes(raw)
    second.write_bytes(second.read_bytes()[:100])
    record = min((future / "cells").glob("*.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 99}))
    out = tmp_path / "tree"
    found = merge([Source(good, "alice-1"), Source(flipped, "bob-1"), Source(future, "carol-1")], out)
    assert [item.outcome for item in found] == ["merged", "refused", "refused"]
    assert {f"cells/{first.name}", f"cells/{second.name}"} <= {text.split(":")[0] for text in found[1].reasons}
    assert any(text.startswith(f"cells/{record.name}") for text in found[2].reasons)
    assert read_unit(out / "alice-1").sku.startswith(load_run(REFERENCE).info.host_facts["cpu_model_name"])
    assert sorted(path.name for path in out.iterdir()) == ["alice-1"]
    again = merge([Source(good, "alice-1"), Source(good, "dave-1")], out)
    assert [item.outcome for item in again] == ["already there", "refused"]
    assert "a copy of alice-1/" in again[1].reasons[0]


def test_two_machines_of_one_model_stay_two(tmp_path):
    out = tmp_path / "tree"
    merge([Source(REFERENCE, "alice-1", "a stand-in")], out)
    shutil.copytree(out / "alice-1", out / "bob-1")
    unit = json.loads((out / "bob-1" / "unit.json").read_text()) | {"unit": "bob-1"}
    (out / "bob-1" / "unit.json").write_text(json.dumps(unit))
    assert twins(out) == [("alice-1", "bob-1")]
    from harness.leaderboard import table
    from harness.store import find_runs

    board = table([load_run(run) for run in find_runs(out)])
    assert set(board["host"]) == {"alice-1", "bob-1"}


def test_merge_and_procure_as_commands(tmp_path, capsys):
    tree = tmp_path / "tree"
    assert call(["merge", f"box={REFERENCE}", "-o", str(tree), "--stand-in", "box=the reference run"]) == 0
    asked = ["procure", str(tree), "--workload", records.WORKLOAD, "--slo", "p90<10ms", "--accuracy", ">=99%"]
    assert call(asked) == 0
    shown = capsys.readouterr().out
    assert "stand-in: the reference run" in " ".join(shown.split())
    assert "no price is given" in shown
    assert call([*asked, "--plot", str(tmp_path / "t.svg")]) == 2
    for name in ("p.md", "p.csv", "p.json"):
        assert call([*asked, "-o", str(tmp_path / name)]) == 0
    assert json.loads((tmp_path / "p.json").read_text())["offers"][0]["stand_in"] == "the reference run"
    assert call(["procure", str(tree), "--workload", "digits"]) == 2
    assert call(["merge", f"x={tmp_path / 'nowhere'}", "-o", str(tree)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_electricity_is_needed_for_a_machine_of_ones_own(tmp_path):
    runs = fleet(abox=10.0, zbox=10.0)
    prices = replace(priced(tmp_path, runs), electricity=None)
    found = procure(runs, workload=records.WORKLOAD, slo=None, accuracy=None, prices=prices)
    bought = next(offer for offer in found.offers if offer.unit.startswith("abox"))
    assert bought.cost is None
    assert bought.machine.point == pytest.approx(1e6 * 0.12 / (3600 * bought.best.throughput.point))
    assert "without energy" in markdown(found)
    assert Electricity(0.1, "EUR", "x", "d").price_per_kwh == 0.1
