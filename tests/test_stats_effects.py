"""Holm's sign tests, effect sizes and the two-level bootstrap against closed forms, scipy and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from harness.stats.bootstrap import disagree, two_level
from harness.stats.effects import cliffs_delta, hodges_lehmann, hodges_lehmann_shift
from harness.stats.holm import certainly_less, holm, replications_needed, sign_test
from harness.types import Interval

FLOATS = st.lists(st.floats(-100, 100), min_size=2, max_size=15)


def test_holm_orders_what_is_far_apart_and_claims_nothing_between_copies():
    chance = np.random.default_rng(1)
    table = chance.normal(0, 0.005, (15, 3)) + np.array([0.3, 0.0, 0.1])
    assert certainly_less(table).tolist() == [[False] * 3, [True, False, True], [True, False, False]]
    wrong = sum(bool(certainly_less(chance.normal(size=(15, 6))).any()) for _ in range(200))
    assert wrong <= reference.binom.ppf(0.95, 200, 0.05)


@given(FLOATS)
def test_sign_test_is_scipys(values):
    above, below = sum(v > 0 for v in values), sum(v < 0 for v in values)
    expected = reference.binomtest(above, above + below).pvalue if above + below else 1.0
    assert sign_test(values) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=8))
def test_holm_is_the_closed_test_over_all_intersections(p_values):
    """By definition: reject i when every intersection that holds i is rejected by Bonferroni."""
    groups = [g for size in range(1, len(p_values) + 1) for g in itertools.combinations(range(len(p_values)), size)]
    expected = [
        all(min(p_values[k] for k in group) <= 0.05 / len(group) for group in groups if place in group)
        for place in range(len(p_values))
    ]
    assert holm(p_values, 0.05) == expected


@pytest.mark.parametrize(("pairs", "least"), [(1, 6), (5, 8), (10, 9), (45, 11), (190, 13), (1225, 16)])
def test_replications_that_pairs_need(pairs, least):
    assert replications_needed(pairs) == least


@given(FLOATS, FLOATS)
def test_cliffs_delta_is_scipys_u(first, second):
    u = reference.mannwhitneyu(first, second, method="asymptotic").statistic
    assert cliffs_delta(first, second) == pytest.approx(2 * u / (len(first) * len(second)) - 1, abs=1e-9)


@given(FLOATS)
def test_hodges_lehmann_is_where_scipys_signed_ranks_balance(values):
    """The one-sample estimate is the shift at which Wilcoxon's positive and negative ranks weigh the same."""
    middle = hodges_lehmann(values)
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)]
    assert middle == pytest.approx(float(np.median(walsh)))
    assert min(values) <= middle <= max(values)


def test_hodges_lehmann_shift_of_a_shifted_sample_is_the_shift():
    values = np.random.default_rng(0).normal(size=21).tolist()
    assert hodges_lehmann_shift([v + 3 for v in values], values) == pytest.approx(3)


def test_two_level_bootstrap_is_as_wide_as_its_theory():
    """Median of 25 normal launches: its standard error is about sqrt(pi / 2) sigma / sqrt(25)."""
    chance, widths = np.random.default_rng(2), []
    for seed in range(12):
        launches = 100 + chance.normal(0, 1, (25, 1)) + chance.normal(0, 0.01, (25, 8))
        interval = two_level(launches.tolist(), seed=seed)
        widths.append(interval.high - interval.low)
    expected = 2 * 1.96 * math.sqrt(math.pi / 2) / math.sqrt(25)
    assert np.mean(widths) == pytest.approx(expected, rel=0.2)


def test_the_bootstrap_is_equal_twice_and_disagreement_is_twice_the_width():
    launches = np.random.default_rng(1).normal(10, 1, (10, 6)).tolist()
    assert two_level(launches, seed=1) == two_level(launches, seed=1)
    assert disagree(Interval(1, 0.9, 1.1), Interval(1, 0.5, 1.5))
    assert not disagree(Interval(1, 0.9, 1.1), Interval(1, 0.85, 1.15))
    assert not disagree(Interval(1, None, None), Interval(1, 0.5, 1.5))
