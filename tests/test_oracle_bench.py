"""Whole runs: an anchor whose answers are wrong fails, and nothing is ranked against it."""

from __future__ import annotations

import csv

import pytest
import way

from harness.audit import audit
from harness.store import load_run, verify_run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run on a target that is right and on one that takes its inputs in another order."""
    toy = way.install(tmp_path_factory.mktemp("oracle"))
    made = toy.run(
        "--methods", "baseline way-zero", "--targets", "way-a way-b:mode=shifted", "--format", "csv"
    )  # fmt: skip
    assert made.returncode == 1, made.stderr
    return toy, made


def test_the_anchor_says_which_output_and_item_differ(done):
    found = done[0].records()["baseline", "way-b:mode=shifted"]
    assert (found["status"], found["stage"]) == ("failed", "accuracy")
    assert found["reason"].startswith("wrong answers: output 'y', item 0: ")
    assert found["reason"].endswith("dB over all items against numpy dot, at least 60 dB is due")
    assert found["oracle"]["sqnr_db"] < 20
    assert found["latency"] is None


def test_nothing_is_ranked_against_it(done):
    found = done[0].records()["way-zero", "way-b:mode=shifted"]
    assert (found["status"], found["anchor"]) == ("ok", None)
    assert found["anchor_reason"].startswith("the anchor is failed: wrong answers")
    assert found["latency"]["ratio"] is None
    assert found["quality"]["difference"] is None
    rows = {(row["method"], row["target"]): row for row in csv.DictReader(done[1].stdout.splitlines())}
    ours = rows["way-zero", "way-b:mode=shifted"]
    assert (ours["ranked"], ours["rank_best"], ours["speedup"], ours["drop"]) == ("False", "", "", "")


def test_the_other_target_is_compared_with_the_framework_and_with_its_anchor(done):
    rows = done[0].records()
    anchor, cell = rows["baseline", "way-a"], rows["way-zero", "way-a"]
    assert anchor["status"] == cell["status"] == "ok"
    assert anchor["oracle"]["sqnr_db"] > 90
    assert (anchor["oracle"]["due_db"], cell["oracle"]["due_db"]) == (60, None)
    assert cell["oracle"]["sqnr_db"] == pytest.approx(cell["quality"]["fidelity"]["sqnr_db"], abs=0.01)
    assert anchor["seconds"]["reference"] > 0


def test_the_board_says_who_agrees_with_the_framework(done):
    from harness.leaderboard import render, table

    text = render(table(load_run(done[0].runs()[-1])), "md").decode()
    assert "the anchors disagree: numpy dot agrees with way-a (" in text
    assert "not with way-b:mode=shifted (" in text


def test_the_record_is_held_against_its_part(done):
    path = done[0].runs()[-1]
    assert verify_run(path) == []
    assert not [item for item in audit(path) if "oracle" in str(item)]
