from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records

from harness.cli.main import call
from harness.compare.history import change_points, history
from harness.errors import PlanError

REFERENCE = next((Path(__file__).parents[1] / "results" / "reference").glob("*/2*"))


def noisy(steps, spread=0.01, seed=0):
    rng = np.random.default_rng(seed)
    return [level + spread * rng.normal() for level in steps]


def test_steps_are_found_where_they_are():
    values = noisy([0.0] * 8 + [math.log(1.1)] * 8 + [math.log(1.3)] * 8)
    found = change_points(values, math.log(1.05))
    assert [at for at, _step, _p in found] == [8, 16]
    assert found[0][1] == pytest.approx(math.log(1.1), abs=0.02)
    assert all(p < 0.05 for _at, _step, p in found)


def test_a_flat_series_seldom_has_a_change():
    flagged = sum(bool(change_points(noisy([0.0] * 12, 0.1, seed), 0.0)) for seed in range(40))
    assert flagged <= 6  # 40 tests at 5 %: more than 6 has a chance of 0.3 %


def test_a_step_below_the_margin_or_too_near_the_end_is_not_named():
    assert change_points(noisy([0.0] * 8 + [0.02] * 8, 0.001), math.log(1.05)) == []
    assert change_points(noisy([0.0] * 3 + [1.0] * 2), 0.01) == []


def test_units_have_a_history_each():
    runs = []
    for unit in ("a", "b"):
        for number in range(8):
            speed = 2.0 if number < 4 or unit == "a" else 1.5
            record = records.record("int8", latency=records.latency(1.0, speed_up=speed * (1 + 0.001 * number)))
            record = replace(record, finished_utc=f"2026-11-{number + 1:02d}T00:00:00+00:00")
            run = records.run_of((record,), host_name=unit)
            runs.append(replace(run, path=Path(f"results/{unit}/run-{number}")))
    copies = [replace(run, path=Path("copy") / run.path) for run in runs]
    steady, changed = history([*reversed(runs), *copies], record.cell_id[:8])
    assert [point.run for point in steady.points] == [f"run-{number}" for number in range(8)]
    assert steady.steps == ()
    (step,) = changed.steps
    assert step.at == "run-4"
    assert step.change == pytest.approx(2.0 / 1.5 - 1, abs=0.01)
    with pytest.raises(PlanError):
        history(runs, "no-such-cell")


def test_history_as_a_command(capsys):
    cell = next(path.stem for path in sorted((REFERENCE / "cells").glob("*.json")))
    assert call(["history", cell, str(REFERENCE)]) == 0
    assert "needs 3 on each side" in capsys.readouterr().out
    assert call(["history", cell, str(REFERENCE), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["cell_id"] == cell
    assert call(["history", "zzz", str(REFERENCE)]) == 2
