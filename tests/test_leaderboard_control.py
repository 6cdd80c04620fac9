"""A cell beside the cell that does the same by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fakes
import numpy as np
import pytest
from records import record, run_of

from harness.leaderboard import table
from harness.plan import Request, make_plan
from harness.store import Run


class Scored(Run):
    """A run whose per-item scores are in memory."""

    kept: Mapping[str, Any] = {}

    def scores(self, cell_id: str) -> Any:
        return self.kept.get(cell_id)


def board(ours: np.ndarray, theirs: np.ndarray) -> str:
    control = record("channel-pruning:importance=0")
    made = record("channel-pruning", provenance={"control": control.cell_id})
    plain = run_of((record(), control, made))
    run = Scored(plain.path, plain.info, plain.records, plain.sets)
    Scored.kept = {made.cell_id: ours, control.cell_id: theirs}
    frame = table(run)
    return str(frame[frame["method"] == "channel-pruning"].iloc[0]["note"])


def hits(items: int, *wrong: range) -> np.ndarray:
    scores = np.ones((items, 1))
    for part in wrong:
        scores[part] = 0
    return scores


def test_a_cell_that_beats_chance_says_nothing() -> None:
    assert board(hits(1000, range(100)), hits(1000, range(300))) == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (hits(1000, range(100)), hits(1000, range(95, 200)), "not shown to beat its control"),
        (hits(1000, range(300)), hits(1000, range(100)), "worse than its control"),
    ],
)
def test_a_cell_that_does_not_beat_chance_says_so(ours: np.ndarray, theirs: np.ndarray, words: str) -> None:
    note = board(ours, theirs)
    assert note.startswith(f"{words} channel-pruning:importance=0: ")
    assert f"{100 * (ours.mean() - theirs.mean()):+.1f} points" in note


def test_scores_of_other_items_are_not_compared() -> None:
    assert board(hits(1000, range(300)), hits(900, range(100))) == ""


def test_the_plan_names_the_control_of_each_cell() -> None:
    chancy = fakes.method("chancy", "other", params=fakes.Ratio, control={"ratio": 0.1})
    methods = ("chancy", "chancy:ratio=0.1", "chancy:ratio=0.1+int8", "chancy+int8", "chancy:epochs=1", "int8")
    request = Request(methods=methods, targets=("ort",))
    made = make_plan(request, fakes.registry(extra_methods=[chancy]), fakes.states(), 2)
    ids = {cell.labels["method"]: cell.cell_id for cell in made.cells}
    controls = {cell.labels["method"]: cell.control for cell in made.cells}
    assert controls == {
        "baseline": "",
        "chancy": ids["chancy:ratio=0.1"],
        "chancy:ratio=0.1": "",
        "chancy:ratio=0.1+int8": "",
        "chancy+int8": ids["chancy:ratio=0.1+int8"],
        "chancy:epochs=1": "",  # its control is not in the plan
        "int8": "",
    }
