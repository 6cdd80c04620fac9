"""Steadiness classes, which launches count, the host's tier, and what sequential stopping looks at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from launches import QUIET, launch_set

from harness.profiles import PROFILES
from harness.stats import narrow, summarise
from harness.stats.dismiss import dismiss_noisy
from harness.stats.steady import change_points, classify
from harness.stats.tier import host_tier

NOISY = dataclasses.replace(QUIET, verdict="noisy", reasons=("noisy: cpu/wall 0.5 (ok >= 0.99)",))


def series(*parts: tuple[int, float], sigma: float = 0.01, seed: int = 0) -> list[float]:
    chance = np.random.default_rng(seed)
    return np.concatenate([1e6 * level * chance.lognormal(0, sigma, count) for count, level in parts]).tolist()


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        (((300, 1.0),), "flat"),
        (((60, 1.3), (240, 1.0)), "warmup"),
        (((100, 1.0), (200, 1.2)), "slowdown"),
        (((100, 1.2), (100, 0.8), (100, 1.0)), "unsteady"),
        (((280, 1.0), (20, 1.5)), "unsteady"),
        (((150, 1.0), (150, 1.01)), "flat"),
    ],
)
def test_classes_of_what_a_launch_can_do(parts, word):
    words = [classify(series(*parts, seed=seed)) for seed in range(20)]
    assert words.count(word) >= 19


def test_change_points_lie_where_the_series_changes():
    assert change_points(series((120, 1.0), (180, 1.1))) == pytest.approx([120], abs=3)
    assert change_points(series((300, 1.0))) == []


def test_single_outliers_are_no_change_points():
    values = series((300, 1.0))
    for place in range(10, 300, 37):
        values[place] *= 20
    assert classify(values) == "flat"


def test_a_steady_launch_is_seldom_called_unsteady_even_when_its_iterations_depend_on_each_other():
    chance, wrong = np.random.default_rng(5), 0
    for _ in range(100):
        error = np.zeros(200)
        for place in range(1, 200):
            error[place] = 0.4 * error[place - 1] + chance.normal(0, 0.02)
        wrong += classify((1e6 * np.exp(error)).tolist()) != "flat"
    assert wrong <= 10


def rounds(value: float):
    return [[int(value + step) for step in range(12)] for _ in range(6)]


def mixed(noisy: int, count: int = 10, factor: float = 3.0):
    """Sets of which the first ``noisy`` were disturbed while b ran, which took ``factor`` times as long in them."""
    found = []
    for index in range(count):
        item = launch_set(index, {"a": rounds(1e6), "b": rounds(1e6 * (factor if index < noisy else 1))})
        if index < noisy:
            launches = tuple(dataclasses.replace(x, noise=NOISY) if x.cell_id == "b" else x for x in item.launches)
            item = dataclasses.replace(item, launches=launches)
        found.append(item)
    return found


def test_noisy_launches_do_not_count_where_enough_others_remain():
    found = summarise("b", "a", mixed(3), PROFILES["standard"])
    assert (found.launches, found.discarded) == (7, 3)
    assert found.p50_ns.point == pytest.approx(1e6, rel=1e-3)
    assert found.ratio.point == pytest.approx(1, rel=1e-3)


def test_both_of_a_pair_are_left_out_with_their_reasons():
    kept = dismiss_noisy(mixed(3), "b", "a")
    out = [launch for item in kept for launch in item.launches if launch.discarded]
    assert [launch.discarded for launch in out if launch.cell_id == "a"] == ["its pair was noisy"] * 3
    assert all("cpu/wall" in launch.discarded for launch in out if launch.cell_id == "b")


def test_where_too_few_are_clean_all_count_and_the_verdict_says_so():
    found = summarise("b", "a", mixed(6), PROFILES["standard"])
    assert (found.launches, found.discarded, found.noise) == (10, 0, "noisy")


def test_clean_sets_of_the_anchor_beside_other_variants_do_not_leave_a_cell_without_its_interval():
    others = [launch_set(100 + index, {"a": rounds(1e6), "c": rounds(1e6)}) for index in range(6)]
    found = summarise("b", "a", [*mixed(3, 6), *others], PROFILES["quick"])
    assert (found.launches, found.discarded, found.noise) == (6, 0, "noisy")
    assert found.ratio.low is not None


def test_the_summary_says_what_the_launches_were_like_and_the_same_samples_give_the_same_summary():
    sets = mixed(0)
    found = summarise("b", "a", sets, PROFILES["standard"])
    assert found.steadiness == {"flat": 10}
    assert found.time_to_first_inference_ns == found.ready_ns + found.load_ns + found.start_ns
    assert found.bootstrap.low <= found.p50_ns.point <= found.bootstrap.high
    assert found.cliffs_delta == 0
    assert found == summarise("b", "a", sets, PROFILES["standard"])


def test_launches_that_slow_down_are_suspect():
    slowing = [[int(1e6 * (1 + 0.4 * (number > 2))) + step for step in range(12)] for number in range(6)]
    sets = [launch_set(index, {"a": slowing}) for index in range(6)]
    found = summarise("a", "a", sets, PROFILES["quick"])
    assert found.steadiness == {"slowdown": 6}
    assert found.noise != "ok"
    assert any("slowing down" in reason for reason in found.reasons)


def test_narrow_is_the_profiles_half_width():
    chance = np.random.default_rng(0)
    tight = [launch_set(i, {"a": rounds(1e6 * chance.normal(1, 0.01))}) for i in range(10)]
    wide = [launch_set(i, {"a": rounds(1e6 * chance.lognormal(0, 0.4))}) for i in range(10)]
    assert narrow(summarise("a", "a", tight, PROFILES["standard"]), PROFILES["standard"])
    assert not narrow(summarise("a", "a", wide, PROFILES["standard"]), PROFILES["standard"])


def test_a_bimodal_canary_makes_tier_two():
    chance = np.random.default_rng(1)
    clean = chance.normal(100, 1, 200)
    assert host_tier(clean.tolist()) == "T1"
    assert host_tier(np.where(np.arange(200) % 10 == 0, clean / 2, clean).tolist()) == "T2"
    assert host_tier(clean[:99].tolist()) is None


def test_order_statistic_intervals_cover_in_hierarchical_series():
    """Launch effect, AR(1) iterations, drift and spikes; the truth is the median of launch medians."""
    from harness.stats import median_interval

    chance, runs, covered = np.random.default_rng(11), 400, 0
    for _ in range(runs):
        medians = []
        for _launch in range(10):
            error = np.zeros(40)
            for place in range(1, 40):
                error[place] = 0.42 * error[place - 1] + chance.normal(0, 0.03)
            spikes = (chance.random(40) < 0.03) * chance.exponential(1.0, 40)
            medians.append(float(np.median(1e6 * np.exp(chance.normal(0, 0.016) + error) * (1 + spikes))))
        interval = median_interval(medians)
        covered += interval.low <= 1e6 * 1.0 * np.exp(0.0015) <= interval.high
    assert 0.93 <= covered / runs <= 0.995
