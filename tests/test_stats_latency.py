from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from launches import QUIET, launch, launch_set
from records import record, run_of

from harness import codec
from harness.errors import HarnessError
from harness.leaderboard import table
from harness.profiles import PROFILES
from harness.stats import link_ratio, median_interval, paired_ratio, summarise, verdict
from harness.types import Interval, Latency, Launch, LaunchSet

QUICK, PUBLISH = PROFILES["quick"], PROFILES["publish"]


def sets(factor: float, count: int = 6, *, drift: float = 0.0, **changes) -> list[LaunchSet]:
    """A cell that takes ``factor`` times as long as its anchor, on a host that drifts from set to set."""
    found = []
    for index in range(count):
        base = 1e6 * (1 + drift * index) * (1 + 0.001 * (index % 3))
        rounds = [[base + step for step in range(12)] for _ in range(6)]
        other = [[value * factor for value in values] for values in rounds]
        found.append(launch_set(index, {"a": rounds, "b": other}, **changes))
    return found


def test_the_ratio_is_exact_however_the_host_drifts():
    ratio, low = paired_ratio(sets(2.0, drift=0.5), "b", "a")
    assert (ratio.point, ratio.low, ratio.high) == pytest.approx((2, 2, 2), rel=1e-5)
    assert low.point == pytest.approx(2, rel=1e-5)


def test_cells_that_share_no_round_have_no_ratio():
    with pytest.raises(ValueError, match="share no round"):
        paired_ratio(sets(1.0), "b", "c")


def test_discarded_launches_do_not_count():
    every = [*sets(2.0), *(launch_set(9, {"a": [[10] * 9], "b": [[90] * 9]}, discarded="noisy") for _ in range(3))]
    assert paired_ratio(every, "b", "a")[0].point == pytest.approx(2, rel=1e-5)
    found = summarise("b", "a", every, QUICK)
    assert (found.launches, found.discarded) == (6, 3)


def test_rounds_pair_across_launches_of_one_set():
    item = launch_set(0, {"a": [[100] * 9, [100] * 9]})
    again = launch("a", 0, [[300] * 9])
    again = dataclasses.replace(again, batches=(dataclasses.replace(again.batches[0], round=2),))
    late = launch("b", 0, [[600] * 9])
    late = dataclasses.replace(late, batches=(dataclasses.replace(late.batches[0], round=2),))
    item = dataclasses.replace(item, launches=(*item.launches, again, late))
    assert paired_ratio([item], "b", "a")[0].point == pytest.approx(2)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.5, 0.9, "faster"), (1.1, 1.3, "slower"), (0.96, 1.04, "equivalent"), (0.9, 1.1, "unresolved"),
        (0.93, 0.97, "unresolved"), (None, None, "unresolved"),
    ],
)  # fmt: skip
def test_verdict_words(low, high, word):
    interval = Interval(1.0 if low is None else (low + high) / 2, low, high)
    found, reasons = verdict(interval, None, "ok", 0.05)
    assert found == word
    assert bool(reasons) == (word == "unresolved")


def test_a_disturbed_cell_needs_both_estimators():
    interval = Interval(0.8, 0.7, 0.9)
    assert verdict(interval, Interval(0.82, 0.7, 0.9), "suspect", 0.05)[0] == "faster"
    assert verdict(interval, Interval(0.95, 0.9, 1.0), "suspect", 0.05)[0] == "unresolved"
    assert verdict(interval, Interval(0.95, 0.9, 1.0), "ok", 0.05)[0] == "faster"
    assert verdict(Interval(0.99, 0.97, 1.01), Interval(1.01, 0.9, 1.1), "noisy", 0.05)[0] == "unresolved"


def test_summary_follows_from_its_samples():
    found = summarise("b", "a", sets(0.5, batch_size=8), QUICK)
    assert found.p50_ns.point == pytest.approx(0.5e6, rel=0.01)
    assert found.verdict == "faster"
    assert found.noise == "ok"
    assert (found.launches, found.samples, found.unsteady) == (6, 6 * 6 * 12, 0)
    assert found.throughput_per_s == pytest.approx(8e9 / found.mean_ns)
    assert found.time_to_first_inference_ns == 60
    assert found.p90_ns is not None
    assert found.p99_ns is None  # 432 samples, 662 are needed


def test_a_start_that_an_older_version_clocked_from_outside_is_not_shown():
    """It held the warm-up of the member before; as a launch and as a summary it is read, and left out."""
    new = codec.to_data(launch("b", 0, [[1_000_000] * 12] * 6))
    old = codec.from_data(Launch, {**without(new, "ready_ns"), "import_ns": 900_000_000})
    assert old.ready_ns is None
    found = summarise("b", "b", [dataclasses.replace(sets(1.0)[0], launches=(old,))], QUICK)
    assert (found.time_to_first_inference_ns, found.ready_ns, found.load_ns) == (None, None, 20)
    summary = codec.to_data(record().latency)
    stored = {**without(summary, "time_to_first_inference_ns"), "first_inference_ns": 1e9, "import_ns": 9e8}
    read = codec.from_data(Latency, stored)
    row = table(run_of((dataclasses.replace(record(), latency=read),))).iloc[0]
    assert row["p50_ns"] == read.p50_ns.point
    assert "first_inference_ns" not in row
    assert pd.isna(row["time_to_first_inference_ns"])


def without(data, name):
    return {key: value for key, value in data.items() if key != name}


def test_the_anchor_and_a_cell_without_one():
    assert summarise("a", "a", sets(1.0), QUICK).verdict == "anchor"
    assert summarise("b", None, sets(1.0), QUICK).verdict == "no anchor"
    assert summarise("b", "lost", sets(1.0), QUICK).verdict == "no anchor"


def test_averages_of_an_inner_loop_have_no_percentiles():
    assert summarise("b", "a", sets(1.0, inner_loops=4), QUICK).p90_ns is None


def test_few_sets_carry_no_interval_and_no_verdict():
    found = summarise("b", "a", sets(0.5, count=5), QUICK)
    assert found.p50_ns.low is None
    assert found.verdict == "unresolved"


def test_no_launch_that_counts_is_an_error():
    with pytest.raises(HarnessError, match="no launch that counts"):
        summarise("c", "a", sets(1.0), QUICK)


@pytest.mark.parametrize(("noisy", "word"), [(0, "ok"), (1, "suspect"), (3, "noisy")])
def test_launches_beside_noisy_neighbours_are_said(noisy, word):
    loud = dataclasses.replace(QUIET, verdict="noisy", reasons=("noisy: hiccup 0.4 (ok <= 0.002)",))
    quiet = sets(0.5)
    every = [
        dataclasses.replace(item, launches=tuple(dataclasses.replace(one, noise=loud) for one in item.launches))
        for item in quiet[:noisy]
    ] + quiet[noisy:]
    found = summarise("b", "a", every, QUICK)
    assert found.noise == word
    assert (f"hiccup noisy in {noisy} of 6 launches" in found.reasons) == (noisy > 0)


def test_spread_of_launch_medians_and_unsteady_launches_are_noise():
    spread = [launch_set(i, {"a": [[1e6 * (1 + 0.2 * i)] * 9] * 6}) for i in range(6)]
    assert summarise("a", "a", spread, QUICK).noise == "noisy"
    assert summarise("b", "a", sets(1.0, steady=False), QUICK).noise == "suspect"


def test_publish_wants_a_narrower_margin():
    assert summarise("b", "a", sets(1.03), QUICK).verdict == "equivalent"
    assert summarise("b", "a", sets(1.03), PUBLISH).verdict == "slower"


def test_the_chain_across_targets_multiplies():
    links = [launch_set(i, {"a": [[1000] * 9] * 6, "z": [[500] * 9] * 6}) for i in range(6)]
    found = link_ratio(sets(2.0), links, "b", "a", "z")
    assert (found.point, found.low, found.high) == pytest.approx((4, 4, 4), rel=1e-5)
    assert link_ratio([], links, "a", "a", "z").point == pytest.approx(2)
    assert link_ratio(sets(2.0), links, "b", "a", "a").point == pytest.approx(2, rel=1e-5)
    assert link_ratio(sets(2.0), [], "b", "a", "z") is None


def hierarchical(chance: np.random.Generator, effect: float, count: int) -> list[LaunchSet]:
    """Sets with launch effects, drift, iteration noise with lag-1 correlation, and spikes (MEASUREMENT 1.2)."""
    found = []
    for index in range(count):
        cells = {}
        drift = 1 + 0.03 * math.sin(index)
        for name, factor in (("a", 1.0), ("b", effect)):
            base = 1e6 * factor * drift * chance.normal(1, 0.012)
            shocks = chance.normal(0, 0.03, 60)
            for place in range(1, 60):
                shocks[place] += 0.3 * shocks[place - 1]
            values = base * (1 + shocks) * np.where(chance.random(60) < 0.03, 1.5, 1.0)
            cells[name] = values.reshape(6, 10).tolist()
        found.append(launch_set(index, cells))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1.0, 1.02])
def test_the_interval_of_the_ratio_covers_the_truth(effect):
    chance = np.random.default_rng(3)
    trials = 300
    held = 0
    for _ in range(trials):
        ratio, _ = paired_ratio(hierarchical(chance, effect, 10), "b", "a")
        held += ratio.low <= effect <= ratio.high
    assert 0.95 <= held / trials <= 1.0  # 97.9 % by its ranks; 0.95 is 3.5 standard errors below


@pytest.mark.slow
def test_equal_cells_are_never_called_faster_or_slower():
    chance = np.random.default_rng(4)
    words = [summarise("b", "a", hierarchical(chance, 1.0, 6), QUICK).verdict for _ in range(200)]
    assert sum(word in {"faster", "slower"} for word in words) == 0


def test_a_median_interval_covers_the_median_of_a_skewed_sample():
    chance = np.random.default_rng(5)
    draws = chance.exponential(1.0, (2000, 10))
    held = [interval.low <= math.log(2) <= interval.high for interval in map(median_interval, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.979, abs=0.012)
