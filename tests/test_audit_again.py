"""Two runs of one host: which cells come out again, which do not, and where noise leaves it open."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import records

from harness.audit.again import repetition
from harness.cli.main import call
from harness.errors import PlanError

REFERENCE = next((Path(__file__).parents[1] / "results/reference").glob("*/*/run.json")).parent


def run(p50_ms, *, speed_up=2.5, noise="ok", **changes):
    anchor = records.record(latency=records.latency(3.0))
    cell = records.record("int8", latency=records.latency(p50_ms, speed_up=speed_up, noise=noise), **changes)
    return records.run_of((anchor, cell))


def test_a_cell_whose_intervals_meet_within_the_margin_came_out_again():
    found = repetition(run(1.20), run(1.30))  # each interval is 2 % wide to either side
    assert found.same == ("baseline on onnxruntime", "int8 on onnxruntime")
    assert (found.problems, found.undecided) == ((), ())


def test_one_that_moved_is_named_with_both_figures():
    (problem,) = repetition(run(1.20), run(1.40)).problems
    assert (problem.demand, problem.what) == ("reproduction", "p50 was 1.2 ms, and is 1.4 ms in run")


def test_where_the_host_was_disturbed_the_ratio_decides_or_nothing_does():
    first = run(1.20, noise="suspect")
    assert "int8 on onnxruntime" in repetition(first, run(2.40, noise="suspect")).same
    assert "time over" in repetition(first, run(1.20, speed_up=1.5, noise="suspect")).problems[0].what
    assert "noisy" in repetition(first, run(1.20, noise="noisy")).undecided[0]


def test_other_artifacts_are_no_repetition():
    other = run(1.20, inputs_sha256="ee" * 32)
    alone = dataclasses.replace(other, records=other.records[1:])
    with pytest.raises(PlanError, match="share no cell"):
        repetition(alone, run(1.20))


def test_verify_tells_what_came_out_again(capsys):
    assert call(["verify", str(REFERENCE), "--again", str(REFERENCE), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["repetition"]
    assert told["problems"] == []
    assert len(told["same"]) + len(told["undecided"]) > 10
