from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import records
from scipy import stats as scipy_stats

from harness.cli.main import call
from harness.compare import Side, compare, junit, markdown, outcome, parse_rule
from harness.errors import PlanError
from harness.stats.shift import median_bounds, rank_of_bound, shift, shift_bounds
from harness.stats.simultaneous import Sample, simultaneous

REFERENCE = next((Path(__file__).parents[1] / "results" / "reference").glob("*/2*"))


@pytest.mark.parametrize(("first", "second"), [(4, 4), (6, 6), (6, 10), (9, 7)])
def test_shift_bounds_invert_the_exact_mann_whitney_test(first, second):
    rng = np.random.default_rng(first * 100 + second)
    a, b = list(rng.normal(size=first)), list(rng.normal(size=second) + 1)
    low, high = shift_bounds(a, b, 0.025)

    def p(shifted, side):
        return scipy_stats.mannwhitneyu(np.array(b) - shifted, a, alternative=side, method="exact").pvalue

    assert p(low - 1e-9, "greater") <= 0.025 < p(low + 1e-9, "greater")
    assert p(high + 1e-9, "less") <= 0.025 < p(high - 1e-9, "less")
    assert low < shift(a, b) < high


def test_too_few_values_carry_no_bounds():
    assert shift_bounds([1, 2, 3], [1, 2, 3], 0.025) is None  # 1 of 20 orders is 5 %
    assert rank_of_bound(6, 6, 1 / 924) == 1
    assert rank_of_bound(6, 6, 0.99 / 924) == 0
    assert median_bounds([1, 2, 3, 4, 5], 0.025) is None


@pytest.mark.parametrize("count", [6, 10, 15, 20])
def test_median_bounds_are_binomial(count):
    values = list(range(count))
    low, high = median_bounds(values, 0.025)
    assert scipy_stats.binom.cdf(low, count, 0.5) <= 0.025 < scipy_stats.binom.cdf(low + 1, count, 0.5)
    assert high == count - 1 - low


@pytest.mark.parametrize("paired", [False, True])
def test_simultaneous_bounds_cover_all_cells_as_often_as_they_say(paired):
    rng = np.random.default_rng(5)
    trials, covered = 60, 0
    for seed in range(trials):
        anchors = rng.laplace(size=(2, 6)) * 0.02
        cells = rng.normal(size=(8, 2, 6)) * 0.015 - anchors
        samples = [Sample(tuple(second), () if paired else tuple(first), "block") for first, second in cells]
        covered += all(item.low <= 0 <= item.high for item in simultaneous(samples, seed=seed))
    assert covered >= scipy_stats.binom.ppf(0.001, trials, 0.95)
    assert covered < trials  # bounds that never miss would be too wide to be of use


def test_a_sample_of_one_has_a_point_and_no_bounds():
    found = simultaneous([Sample((0.1,), (0.0, 0.2)), Sample((0.1, 0.2, 0.3), (0.0, 0.1, 0.2))])
    assert (found[0].low, found[0].high) == (None, None)
    assert found[1].low < 0.1 < found[1].high


def run(scale: dict[str, float] | None = None, *, sets: int = 6, seed: int = 0, jitter: float = 0.01, **changes):
    """A run of baseline, int8 and channel-pruning; ``scale`` slows cells by method, the host drifts as it likes."""
    rng = random.Random(seed)
    names = {"baseline": 3.0, "int8": 1.2, "channel-pruning": 1.6}
    made = {method: records.record(method, **changes) for method in names}
    mood = 1 + 0.4 * rng.random()
    launched = []
    for index in range(sets):
        members = {
            made[method].cell_id: ms * mood * (scale or {}).get(method, 1.0) * math.exp(rng.gauss(0, jitter))
            for method, ms in names.items()
        }
        launched.append(records.launch_set("g", index, members, anchor=made["baseline"].cell_id))
    listed = tuple(f"g-{index:05d}" for index in range(sets))
    run_ = records.run_of(tuple(replace(item, sets=listed) for item in made.values()), tuple(launched))
    return replace(run_, path=Path(f"results/build-box/run-{seed}"))


def sides(a, b):
    return Side("a", a), Side("b", b)


def latency(found, method):
    return next(pair.changes["latency"] for pair in found.pairs if f" {method} " in pair.name)


def test_a_planted_slow_down_of_ten_percent_is_caught():
    found = compare(*sides(run(), run({"int8": 1.10}, seed=1, sets=10)), rules=[parse_rule("slower>5%")])
    change = latency(found, "int8")
    assert change.word == "slower"
    assert change.change.low < 0.10 < change.change.high
    assert latency(found, "channel-pruning").word != "slower"
    assert {item.name.split()[1] for item in found.ruled if item.outcome == "fail"} == {"int8"}
    assert outcome(found, unresolved_fails=False) == 1


@pytest.mark.parametrize("seed", range(1, 9))
def test_two_equal_runs_pass(seed):
    found = compare(*sides(run(), run(seed=seed)), rules=[parse_rule("slower>5%"), parse_rule("memory>10%")])
    assert outcome(found, unresolved_fails=False) == 0
    assert {latency(found, method).word for method in ("int8", "channel-pruning")} <= {"equivalent", "unresolved"}
    assert latency(found, "baseline").word == "yardstick"


def test_undecided_cells_neither_pass_nor_fail_unless_told_so():
    found = compare(*sides(run(jitter=0.1), run(jitter=0.1, seed=3)), rules=[parse_rule("slower>5%")])
    assert {item.outcome for item in found.ruled} == {"unresolved", "not judged"}
    assert outcome(found, unresolved_fails=False) == 0
    assert outcome(found, unresolved_fails=True) == 1
    assert "did not pass" in markdown(found)


def test_absolute_times_are_used_where_the_yardsticks_differ():
    other = run(seed=2)
    changed = tuple(replace(item, inputs_sha256="ef" * 32) for item in other.records)
    found = compare(*sides(run(), replace(other, records=changed)))
    assert {pair.changes["latency"].basis for pair in found.pairs} == {"absolute"}
    assert any("absolute times" in text for text in found.notes)


def test_two_methods_of_one_run_are_paired_by_set():
    one = run({"int8": 1.0}, sets=8)
    found = compare(Side("a", one, method="int8"), Side("b", one, method="channel-pruning"))
    (pair,) = found.pairs
    assert pair.changes["latency"].basis == "same sets"
    assert pair.changes["latency"].word == "slower"
    assert pair.changes["latency"].change.point == pytest.approx(1.6 / 1.2 - 1, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"profile": "standard"}, "other profile: quick against standard"),
        ({"kind": "estimated"}, "other kind: measured against estimated"),
        ({"status": "crashed", "reason": "SIGSEGV"}, "crashed in b: SIGSEGV"),
        ({"threads": 2}, "other options: threads 1 against 2"),
        (
            {"artifact": replace(records.artifact(), sha256="0" * 64), "model_sha256": "1" * 64},
            "the artifacts differ and the model's hash is not recorded",
        ),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(changes, reason):
    a = records.run_of((records.record("int8"),))
    b = replace(records.run_of((records.record("int8", **changes),)), path=Path("other"))
    (pair,) = compare(*sides(a, b)).pairs
    assert pair.refused.startswith(reason)
    assert pair.changes == {}


def test_another_model_is_compared_as_a_recipe_when_asked_and_labelled_so():
    a = run()
    models = [
        replace(item, artifact=replace(item.artifact, sha256="1" * 64), model_sha256="2" * 64) for item in a.records
    ]
    mine = replace(a, records=tuple(replace(item, model_sha256="3" * 64) for item in a.records))
    theirs = replace(run(seed=4), records=tuple(models))
    refused = compare(*sides(mine, theirs))
    assert all("other model: 33333333 against 22222222" in pair.refused for pair in refused.pairs)
    asked = compare(*sides(mine, theirs), same_recipe=True)
    assert asked.pairing == "same-recipe"
    assert all("same recipe, other model" in pair.notes for pair in asked.pairs)
    same = compare(*sides(replace(mine, records=tuple(models)), theirs))
    assert same.compared == 3


def test_a_cell_that_lost_its_figures_fails_every_rule():
    b = run(seed=5)
    lost = replace(b.records[1], status="failed", reason="out of memory", latency=None)
    found = compare(*sides(run(), replace(b, records=(b.records[0], lost))), rules=[parse_rule("memory>10%")])
    failed = [item for item in found.ruled if item.outcome == "fail"]
    assert len(failed) == 2
    assert any("out of memory" in item.reason for item in failed)
    assert any("only in a" in item.reason for item in failed)


def test_accuracy_is_paired_by_item_and_judged_in_points(tmp_path):
    ours = np.ones((400, 1))
    theirs = ours.copy()
    theirs[:12] = 0
    paths = []
    for name, scores in (("a", ours), ("b", theirs)):
        folder = tmp_path / name / "scores"
        folder.mkdir(parents=True)
        for record in run().records:
            np.save(folder / f"{record.cell_id}.npy", scores)
        paths.append(folder.parent)
    a, b = replace(run(), path=paths[0]), replace(run(seed=6), path=paths[1])
    worse = tuple(
        replace(item, quality=replace(item.quality, value=replace(item.quality.value, point=0.97)))
        for item in b.records
    )
    better = tuple(
        replace(item, quality=replace(item.quality, value=replace(item.quality.value, point=1.0))) for item in a.records
    )
    rules = [parse_rule("accuracy<-0.5"), parse_rule("accuracy<-9")]
    found = compare(*sides(replace(a, records=better), replace(b, records=worse)), rules=rules)
    change = found.pairs[0].changes["accuracy"]
    assert change.change.point == pytest.approx(-3.0)
    assert change.word == "worse"
    assert -6 < change.change.low < -3 < change.change.high < -0.5
    assert [item.outcome for item in found.ruled] == ["fail"] * 3 + ["pass"] * 3


@pytest.mark.parametrize(
    "text", ["slower", "slower>5", "slower<5%", "accuracy>0.5", "accuracy<-1%", "speed>5%", "memory>x%", ""]
)
def test_a_rule_that_cannot_be_meant_is_refused(text):
    with pytest.raises(PlanError):
        parse_rule(text)


HOSTILE = '<script>alert(1)</script>\n=cmd()|"x"\u202e\x00]]>'


def test_hostile_names_are_harmless_in_markdown_and_junit():
    a = run()
    named = tuple(replace(item, labels={**item.labels, "method": HOSTILE}) for item in a.records[1:2])
    lost = replace(named[0], status="failed", reason=HOSTILE)
    found = compare(
        *sides(replace(a, records=named), replace(run(seed=1), records=(lost,))), rules=[parse_rule("slower>5%")]
    )
    text = markdown(found)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "\x00" not in text
    tree = ElementTree.fromstring(junit(found))
    assert tree.find(".//failure") is not None
    assert "alert" in tree.find(".//testcase").get("name")


def test_junit_counts_its_cases():
    found = compare(*sides(run(), run({"int8": 1.3}, seed=1)), rules=[parse_rule("slower>5%")])
    suite = ElementTree.fromstring(junit(found)).find("testsuite")
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases) == 3
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) == 1
    assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))


def test_the_command_sets_its_exit_code(capsys):
    side = str(REFERENCE)
    assert call(["compare", side, side, "--fail-if", "slower>900%"]) == 0
    assert "the same run" in capsys.readouterr().out
    assert call(["compare", side, side, "--fail-if", "slower>5%", "--unresolved", "fail"]) == 1
    assert call(["compare", f"{side}::int8@tflite", f"{side}::baseline@tflite", "--fail-if", "slower>5%"]) == 1
    assert "slower>5%  fail" in capsys.readouterr().out
    assert call(["compare", side, f"{side}::no-such"]) == 2
    assert call(["compare", side, "nowhere"]) == 2
    error = capsys.readouterr().err
    assert "no method 'no-such'" in error
    assert "Traceback" not in error


def test_the_command_writes_what_ci_reads(tmp_path):
    for name in ("c.md", "c.xml", "c.json"):
        assert call(["compare", f"{REFERENCE}::int8", f"{REFERENCE}::baseline", "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "c.md").read_text().startswith("### harness compare")
    assert ElementTree.parse(tmp_path / "c.xml").getroot().tag == "testsuites"
    assert json.loads((tmp_path / "c.json").read_text())["mode"].startswith("two selections")
