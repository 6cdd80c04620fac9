from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from harness.stats import (
    mcnemar_exact,
    median_interval,
    newcombe_paired,
    percentile_estimate,
    percentile_support,
    wilson,
)
from harness.stats.order import coverage, median_rank, quantile, robust_cv
from harness.stats.percentiles import allowed_over


@pytest.mark.parametrize(
    ("count", "ranks", "level"),
    [
        (6, (1, 6), 0.969), (8, (1, 8), 0.992), (10, (2, 9), 0.979), (12, (3, 10), 0.961), (15, (4, 12), 0.965),
        (20, (6, 15), 0.959),
    ],
)  # fmt: skip
def test_order_statistics_of_the_protocol(count, ranks, level):
    interval = median_interval(range(1, count + 1))
    assert (interval.low, interval.high) == ranks
    assert coverage(count, ranks[0]) == pytest.approx(level, abs=5e-4)
    assert f"of {count}" in interval.method


@pytest.mark.parametrize("count", range(1, 6))
def test_under_six_values_there_is_no_interval(count):
    interval = median_interval(range(count))
    assert (interval.low, interval.high) == (None, None)
    assert str(count) in interval.method


@given(st.integers(6, 60))
def test_coverage_is_the_binomial_one(count):
    rank = median_rank(count)
    assert rank is not None
    exact = 1 - 2 * reference.binom.cdf(rank - 1, count, 0.5)
    assert coverage(count, rank) == pytest.approx(exact, abs=1e-12)
    assert exact >= 0.95 > 1 - 2 * reference.binom.cdf(rank, count, 0.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_quantile_is_numpys(values, share):
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-6)


def test_robust_cv_of_a_normal_sample_is_its_cv():
    values = np.random.default_rng(1).normal(100, 3, 20_000)
    assert robust_cv(values.tolist()) == pytest.approx(0.03, rel=0.03)


@pytest.mark.parametrize(
    ("percentile", "least"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)]
)
def test_support_is_loadgens(percentile, least):
    assert percentile_support(percentile) == least
    assert percentile_estimate(range(least - 1), percentile) is None
    assert percentile_estimate(range(least), percentile) == least - 1


@pytest.mark.parametrize("queries", [100, 500, 2000])
def test_allowed_over_agrees_with_scipy(queries):
    over = allowed_over(0.9, queries)
    assert reference.binom.cdf(over, queries, 0.1) <= 0.01 < reference.binom.cdf(over + 1, queries, 0.1)
    assert percentile_estimate(range(queries), 0.9) == queries - over


@pytest.mark.parametrize(
    ("items", "low", "high"), [(1000, 91.25, 94.42), (10_000, 92.48, 93.48), (50_000, 92.77, 93.22)]
)
def test_wilson_at_93_percent(items, low, high):
    found = wilson(round(0.93 * items), items)
    assert [100 * bound for bound in found] == pytest.approx([low, high], abs=0.006)


@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilson_is_scipys(items, share):
    hits = round(share * items)
    wanted = reference.binomtest(hits, items).proportion_ci(method="wilson")
    assert wilson(hits, items) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_wilson_refuses_what_is_no_proportion():
    with pytest.raises(ValueError, match="no proportion"):
        wilson(0, 0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(lost, gained):
    wanted = reference.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar_exact(lost, gained) == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_newcombe_paired_on_the_published_table():
    """Airway hyper-responsiveness before and after transplantation: 1, 1, 7, 12 of 21.

    Fagerland, Lydersen and Laake, Recommended tests and confidence intervals for paired binomial proportions,
    Statistics in Medicine 33 (2014): difference -0.286, square-and-add interval -0.507 to -0.026.
    """
    low, high = newcombe_paired(1, 1, 7, 12)
    assert (low, high) == pytest.approx((-0.507, -0.026), abs=6e-4)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_newcombe_turns_around_with_its_arguments_and_holds_the_difference(both, first, second, neither):
    low, high = newcombe_paired(both, first, second, neither)
    back = newcombe_paired(both, second, first, neither)
    assert (low, high) == pytest.approx((-back[1], -back[0]), abs=1e-12)
    difference = (first - second) / (both + first + second + neither)
    assert -1 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1
    assert not math.isnan(low)
