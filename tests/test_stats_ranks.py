from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.stats import certainly_less, rank_sets


def noise(sets, entries, seed, spikes=False):
    chance = np.random.default_rng(seed)
    values = chance.normal(0, 0.02, (sets, entries + 1))
    if spikes:
        values *= chance.choice([1, 6], p=[0.8, 0.2], size=values.shape)
    return values[:, 1:] - values[:, :1]  # relative to a common anchor


@pytest.mark.parametrize(("sets", "spikes"), [(6, False), (6, True), (10, False), (15, True)])
def test_copies_of_one_thing_share_all_ranks_in_95_percent_of_runs(sets, spikes):
    trials = 200
    wrong = sum(certainly_less(noise(sets, 10, seed, spikes)).any() for seed in range(trials))
    assert wrong <= 18  # binomial 99 % bound of 5 % in 200


@pytest.mark.parametrize(("sets", "least"), [(6, 0.85), (10, 0.98), (15, 0.99)])
def test_entries_8_percent_apart_are_told_apart(sets, least):
    found = []
    for seed in range(20):
        logs = noise(sets, 10, seed) + np.log(np.linspace(1, 2, 10))
        less = certainly_less(logs)
        assert not np.any(less & less.T)
        found.append(np.mean([less[a, a + 1] for a in range(9)]))
    assert np.mean(found) >= least


def test_the_error_stays_with_true_orders_beside_it():
    """Strong control: two equal entries among eight different ones."""
    wrong = 0
    for seed in range(200):
        less = certainly_less(noise(8, 10, seed) + np.log([1, 1, 1.3, 1.6, 2, 2.5, 3, 3.6, 4, 5]))
        wrong += bool(less[0, 1] or less[1, 0])
    assert wrong <= 18


def test_one_pair_is_the_sign_flip_test_itself():
    """Against a permutation test written out: all 2^K sign patterns of the t statistic."""
    chance = np.random.default_rng(5)
    for _trial in range(50):
        values = chance.normal(-0.02, 0.02, 7)
        flips = np.array(list(itertools.product([1, -1], repeat=7))) * values
        t = np.abs(flips.mean(1)) / (flips.std(1, ddof=1) / np.sqrt(7))
        p = np.mean(t >= t[0] * (1 - 1e-12))
        less = certainly_less(np.column_stack([values, np.zeros(7)]))
        assert less.any() == (p <= 0.05), p


def test_fewer_than_six_sets_order_nothing():
    logs = np.column_stack([np.zeros(5), np.full(5, 1.0) + np.arange(5) / 100])
    assert not certainly_less(logs).any()
    assert certainly_less(np.column_stack([np.zeros(6), np.full(6, 1.0) + np.arange(6) / 100]))[0, 1]


def test_a_missing_set_only_takes_evidence_away():
    logs = np.column_stack([np.zeros(8), np.full(8, 1.0) + np.arange(8) / 100, np.full(8, 2.0)])
    logs[0, 2] = np.nan
    assert certainly_less(logs)[:2, 2].all()
    logs[:3, 2] = np.nan
    assert certainly_less(logs)[0].tolist() == [False, True, False]


def test_equal_values_are_never_ordered_and_constant_differences_are():
    assert not certainly_less(np.zeros((8, 4))).any()
    assert certainly_less(np.tile([0.0, 0.1], (8, 1)))[0, 1]


def test_rank_sets_of_a_known_order():
    less = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
    assert rank_sets(less) == [(1, 2), (1, 3), (2, 3), (4, 4)]
    assert rank_sets(np.zeros((10, 10), dtype=bool)) == [(1, 10)] * 10
    assert rank_sets(np.zeros((0, 0), dtype=bool)) == []


def test_equal_seeds_give_equal_orders():
    logs = noise(20, 6, 3) + np.linspace(0, 0.1, 6)
    assert (certainly_less(logs, seed=1) == certainly_less(logs, seed=1)).all()
