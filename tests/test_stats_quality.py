from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness.stats import agreement_intervals, fidelity, mcnemar_exact, paired_bootstrap, quality


def accuracy(scores):
    return float(np.mean(scores[:, 0]))


def percent(scores):
    return 100 * accuracy(scores)


def hits(total, wrong):
    scores = np.ones((total, 1))
    scores[list(wrong)] = 0
    return scores


def judge(scores, anchor, **changes):
    known = {
        "metric": "accuracy", "unit": "%", "higher_is_better": True, "interval": "wilson", "items": 1000,
        "aggregate": accuracy,
    }  # fmt: skip
    return quality(scores, anchor, **{**known, **changes})


def test_planted_flips_are_counted_exactly():
    anchor, cell = hits(1000, range(50)), hits(1000, range(40, 70))
    found = judge(cell, anchor)
    assert (found.lost, found.gained) == (20, 40)
    assert found.flips == pytest.approx(0.06)
    assert found.difference.point == pytest.approx(0.02)
    assert found.value.point == pytest.approx(0.97)
    assert found.p_value == pytest.approx(mcnemar_exact(20, 40))
    assert found.difference.low < 0.02 < found.difference.high


@pytest.mark.parametrize("aggregate", [accuracy, percent])
def test_bounds_are_in_the_unit_of_the_metric(aggregate):
    found = judge(hits(1000, range(70)), hits(1000, range(60)), aggregate=aggregate)
    scale = aggregate(np.ones((1, 1)))
    assert [found.value.low / scale, found.value.high / scale] == pytest.approx([0.9125, 0.9442], abs=6e-5)
    assert found.difference.point / scale == pytest.approx(-0.01)


def test_small_sets_are_underpowered_and_large_ones_are_not():
    assert judge(hits(450, range(5)), hits(450, range(3))).underpowered
    assert judge(hits(450, range(3)), None).underpowered
    assert not judge(hits(50_000, range(3000)), hits(50_000, range(3010))).underpowered


def test_without_labels_there_is_only_fidelity():
    found = judge(None, None, fidelity={"sqnr_db": 40.0})
    assert found.value is None
    assert found.fidelity == {"sqnr_db": 40.0}


def test_scores_of_other_items_are_refused():
    with pytest.raises(ValueError, match="10 items were scored"):
        judge(hits(10, []), hits(11, []))


def rmse(scores):
    return math.sqrt(float(np.mean(scores[:, 0])))


def test_the_bootstrap_of_a_mean_is_the_normal_interval():
    chance = np.random.default_rng(0)
    anchor = chance.normal(5, 1, (400, 1))
    cell = anchor + chance.normal(0.3, 0.2, (400, 1))
    found = paired_bootstrap(cell, anchor, accuracy, seed=1)
    difference = (cell - anchor)[:, 0]
    half = 1.96 * difference.std(ddof=1) / math.sqrt(400)
    assert found.point == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.002)
    assert paired_bootstrap(cell, anchor, accuracy, seed=1) == found


def test_a_metric_that_is_no_accuracy_keeps_its_unit():
    chance = np.random.default_rng(2)
    anchor = chance.chisquare(1, (300, 1)) * 2500
    found = judge(anchor * 1.21, anchor, interval="bootstrap", aggregate=rmse, metric="rmse", higher_is_better=False)
    assert found.difference.point == pytest.approx(0.1 * rmse(anchor))
    assert found.difference.low > 0
    assert (found.flips, found.p_value) == (None, None)


def test_fidelity_in_closed_form():
    anchor = np.tile([3.0, 4.0, 0.0], (2000, 1))
    found = fidelity({"y": anchor * 1.1}, {"y": anchor})
    assert found.figures["sqnr_db"] == pytest.approx(20.0)
    assert found.figures["cosine"] == pytest.approx(1.0)
    assert found.figures["top1_agreement"] == 1.0


def test_top1_agreement_counts_items():
    anchor = np.eye(4)[np.arange(2000) % 4]
    cell = anchor.copy()
    cell[:100] = cell[:100, ::-1]
    found = fidelity({"y": cell}, {"y": anchor})
    assert found.figures["top1_agreement"] == pytest.approx(0.95)
    assert found.agreement.shape == (2000, 1)
    assert found.agreement.sum() == 1900
    for none in (
        fidelity({"y": cell}, {"y": anchor}, task="regression"),
        fidelity({"y": cell[:, :1]}, {"y": anchor[:, :1]}),
    ):
        assert "top1_agreement" not in none.figures
        assert none.agreement is None


def test_agreement_has_the_interval_of_scipy():
    chance = np.random.default_rng(7)
    anchor = chance.normal(size=(600, 12))
    cell = anchor + chance.normal(0, 0.8, (600, 12))
    found = fidelity({"y": cell}, {"y": anchor})
    judged = judge(None, None, fidelity=found.figures, agreement=found.agreement)
    first = anchor.argmax(axis=1)
    right = {
        "top1_agreement": int((cell.argmax(axis=1) == first).sum()),
        "top5_agreement": sum(int(f in np.argsort(row)[-5:]) for row, f in zip(cell, first, strict=True)),
    }
    assert set(judged.agreement) == set(right)
    for name, count in right.items():
        same = scipy.stats.binomtest(count, 600).proportion_ci(method="wilson")
        interval = judged.agreement[name]
        assert (interval.point, interval.low, interval.high) == pytest.approx((count / 600, same.low, same.high))
        assert judged.fidelity[name] == pytest.approx(count / 600)


def test_equal_outputs_agree_up_to_one():
    same = np.random.default_rng(1).normal(size=(100, 3))
    found = judge(None, None, agreement=fidelity({"y": same}, {"y": same}).agreement)
    assert found.agreement["top1_agreement"].point == found.agreement["top1_agreement"].high == 1.0
    assert found.agreement["top1_agreement"].low == pytest.approx(0.963, abs=1e-3)


def test_of_several_outputs_the_one_that_agrees_least_counts():
    anchor = np.eye(4)[np.arange(40) % 4]
    swapped = anchor.copy()
    swapped[:10] = swapped[:10, ::-1]
    found = fidelity({"a": anchor, "b": swapped}, {"a": anchor, "b": anchor})
    assert found.agreement[:, 0].tolist() == [0.0] * 10 + [1.0] * 30
    assert found.figures["top1_agreement"] == 0.75


def test_choices_of_one_item_count_by_their_share_and_the_interval_covers():
    chance, covered = np.random.default_rng(3), 0
    for _ in range(300):
        level = chance.beta(8, 2, size=(60, 1))  # pixels of one item agree together, and items differ
        agreeing = (chance.random((60, 20)) < level).mean(axis=1, keepdims=True)
        interval = agreement_intervals(agreeing)["top1_agreement"]
        covered += interval.low <= 0.8 <= interval.high
    assert covered >= 285


def test_the_worst_output_counts_and_identical_ones_are_capped():
    same, other = np.ones((5, 2)), np.ones((5, 2)) * 2
    assert fidelity({"a": same}, {"a": same}).figures["sqnr_db"] == 300
    both = fidelity({"a": same, "b": same}, {"a": same, "b": other})
    assert both.figures["sqnr_db"] == pytest.approx(10 * math.log10(4))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_stay_representable(bad):
    found = fidelity({"y": np.full((3, 2), bad)}, {"y": np.ones((3, 2))}).figures
    assert all(math.isfinite(value) for value in found.values())
    assert found["sqnr_db"] == -300
