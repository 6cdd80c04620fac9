"""Calibration error, proper scores and robustness, against scikit-learn, scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import foldnorm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from harness.stats.confidence import (
    BINS,
    BRIER,
    CONFIDENCE,
    CORRECT,
    NLL,
    calibration_error,
    confidence,
    debiased,
    equal_mass_bins,
    folded_mean,
    item_confidences,
)
from harness.stats.robustness import robustness


def guesses(items: int, sharpness: float = 1.0, seed: int = 0, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose softmax, times ``sharpness`` in the exponent, tells the truth at 1, and labels."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 1.5, (items, classes))
    labels = np.array([chance.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return sharpness * logits, labels


def test_log_loss_and_brier_are_scikit_learns():
    logits, labels = guesses(700)
    items, how = item_confidences(logits, labels)
    chances = softmax(logits, axis=1)
    assert how == "softmax"
    assert items[:, NLL].mean() == pytest.approx(log_loss(labels, chances), rel=1e-12)
    one_hot = np.eye(5)[labels]
    by_class = [brier_score_loss(one_hot[:, at], chances[:, at]) for at in range(5)]
    assert items[:, BRIER].mean() == pytest.approx(sum(by_class), rel=1e-12)
    again, how = item_confidences(chances, labels)
    assert how == "as given"
    np.testing.assert_allclose(again, items)


def test_calibration_error_is_that_of_scikit_learns_curve():
    logits, labels = guesses(900, 1.6)
    items, _how = item_confidences(logits, labels)
    sure, right = items[:, CONFIDENCE], items[:, CORRECT]
    bins = equal_mass_bins(sure)
    assert np.bincount(bins).tolist() == [60] * BINS
    rate, mean = calibration_curve(right, sure, n_bins=BINS, strategy="quantile")
    assert calibration_error(sure, right, bins) == pytest.approx(np.abs(rate - mean).mean(), abs=1e-3)


def test_equal_confidences_share_a_bin():
    bins = equal_mass_bins(np.array([0.5] * 90 + [0.9] * 10))
    assert len(set(bins[:90])) == len(set(bins[90:])) == 1
    assert calibration_error(np.full(100, 0.75), np.arange(100) % 2, equal_mass_bins(np.full(100, 0.75))) == 0.25


def test_the_folded_mean_is_scipys():
    mean, sigma = np.array([0.0, 0.03, 0.2]), np.array([0.1, 0.04, 0.01])
    np.testing.assert_allclose(folded_mean(mean, sigma), foldnorm.mean(mean / sigma, scale=sigma))
    assert folded_mean(np.array([0.3]), np.array([0.0]))[0] == pytest.approx(0.3)


def test_debiasing_takes_off_what_chance_adds_to_a_calibrated_model():
    plain, corrected = [], []
    for seed in range(30):
        items, _how = item_confidences(*guesses(400, seed=seed))
        bins = equal_mass_bins(items[:, CONFIDENCE])
        plain.append(calibration_error(items[:, CONFIDENCE], items[:, CORRECT], bins))
        corrected.append(debiased(items[:, CONFIDENCE], items[:, CORRECT], bins))
    assert np.mean(plain) > 0.05  # though the truth is 0
    assert np.mean(corrected) < 0.7 * np.mean(plain)


def test_the_paired_change_finds_a_loss_of_calibration_and_none_between_copies():
    logits, labels = guesses(2000)
    anchor, how = item_confidences(logits, labels)
    worse, _how = item_confidences(2 * logits, labels)
    same = confidence(anchor, anchor, how=how, resamples=300)
    assert (same.ece_change.low, same.nll_change.point, same.brier_change.high) == (0.0, 0.0, 0.0)
    found = confidence(worse, anchor, how=how, resamples=300)
    assert found.ece_change.low > 0
    assert found.nll_change.low > 0
    assert found.ece.low < found.ece.point < found.ece.high
    assert found == confidence(worse, anchor, how=how, resamples=300)


def test_the_interval_of_log_loss_is_the_normal_one():
    items, how = item_confidences(*guesses(3000))
    found = confidence(items, None, how=how).nll
    half = 1.96 * items[:, NLL].std() / np.sqrt(len(items))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert confidence(items, None, how=how, resamples=10).ece_change is None


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (np.zeros((4, 1)), np.zeros(4, int)),
        (np.zeros((4, 3)), np.array([0.5, 0, 1, 2])),
        (np.zeros((4, 3)), np.array([0, 1, 2, 3])),
        (np.zeros((4, 3, 2)), np.zeros(4, int)),
    ],
)
def test_outputs_that_score_no_classes_have_none(outputs, labels):
    assert item_confidences(outputs, labels) is None


def share(scores: np.ndarray) -> float:
    return float(scores.mean())


def test_robustness_of_planted_scores_in_closed_form():
    anchor = np.ones((2, 400, 1))
    cell = np.ones((2, 400, 1))
    anchor[1, :40] = 0
    cell[0, :40] = cell[1, :80] = 0
    clean_cell = np.ones((400, 1))
    clean_cell[:20] = 0
    found = robustness(
        ["a:1", "b:1"], cell, anchor, (clean_cell, np.ones((400, 1))), aggregate=share, interval="wilson"
    )
    assert found.corrupted == {"a:1": 0.9, "b:1": 0.8}
    assert found.value.point == pytest.approx(0.85)
    assert found.difference.point == pytest.approx(-0.10)
    assert found.extra.point == pytest.approx(-0.05)
    assert found.relative_error is None  # the anchor makes no error under a:1
    per_item = (cell - anchor).mean(axis=0)[:, 0]
    half = 1.96 * per_item.std() / 20
    assert (found.difference.high - found.difference.low) / 2 == pytest.approx(half, rel=0.05)


def test_the_relative_error_is_the_mean_of_ratios():
    anchor, cell = np.ones((2, 100, 1)), np.ones((2, 100, 1))
    anchor[0, :10] = anchor[1, :50] = 0
    cell[0, :20] = cell[1, :50] = 0
    found = robustness(["a:1", "b:1"], cell, anchor, None, aggregate=share, interval="wilson")
    assert found.relative_error == pytest.approx((2 + 1) / 2)
    assert found.extra is None


def test_another_metric_goes_through_its_own_aggregate():
    chance = np.random.default_rng(0)
    errors = chance.normal(0, 1, (1, 300, 1))
    found = robustness(
        ["a:1"], errors, None, None,
        aggregate=lambda scores: float(np.sqrt((scores**2).mean())), interval="bootstrap",
    )  # fmt: skip
    assert found.value.point == pytest.approx(np.sqrt((errors**2).mean()))
    assert (found.difference, found.relative_error) == (None, None)
