"""--stages: which cells are planned, and what each step's own effect comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest
import records

from harness.leaderboard import render, table
from harness.leaderboard.stages import stage_effects
from harness.plan import Request, make_plan, resolve_targets
from harness.stats.proportions import newcombe_paired
from harness.store import Run

STAGED = Request(workloads=(records.WORKLOAD,), stages=True)
CHAIN = ("baseline", "channel-pruning", "channel-pruning+int8")
HITS = (97, 90, 95)  # of 100


def planned(stages: bool, *methods: str) -> list[tuple[str, bool]]:
    registry = fakes.registry()
    request = Request(methods=methods, targets=("ort",), stages=stages)
    states = fakes.states() if hasattr(fakes, "states") else {}
    assert resolve_targets(request, registry)
    made = make_plan(request, registry, states, 2)
    return [(cell.labels["method"], cell.added) for cell in made.cells]


def test_each_prefix_is_planned_once_and_marked_as_added() -> None:
    found = planned(True, "channel-pruning+int8", "channel-pruning+fp16", "channel-pruning:ratio=0.3")
    assert found == [
        ("baseline", True),
        ("channel-pruning", True),
        ("channel-pruning+int8", False),
        ("channel-pruning+fp16", False),
        ("channel-pruning:ratio=0.3", False),
    ]


def test_without_stages_nothing_is_added() -> None:
    assert planned(False, "channel-pruning+int8") == [("baseline", True), ("channel-pruning+int8", False)]


def staged_run(folder: Path, stages: bool = True) -> Run:
    sizes, made = (1000, 600, 200), []
    for method, hits, size in zip(CHAIN, HITS, sizes, strict=True):
        base = records.record(method, quality=records.quality(hits / 100))
        made.append(replace(base, artifact=replace(base.artifact, artifact_bytes=size), sets=tuple(NAMES)))
    ids = [item.cell_id for item in made]
    sets = tuple(
        records.launch_set("g", index, dict(zip(ids, (4.0, 2.0, 1.0), strict=True)), anchor=ids[0])
        for index in range(6)
    )
    run = records.run_of(tuple(made), sets, request=replace(STAGED, stages=stages))
    run = replace(run, path=folder)
    (folder / "scores").mkdir()
    for cell_id, hits in zip(ids, HITS, strict=True):
        np.save(folder / "scores" / f"{cell_id}.npy", (np.arange(100) < hits).astype(np.float64)[:, None])
    return run


NAMES = [f"g-{index:05d}" for index in range(6)]


def test_a_stage_is_compared_with_the_pipeline_one_step_shorter(tmp_path: Path) -> None:
    found = {item["stage_step"]: item for item in stage_effects(staged_run(tmp_path)).values()}
    assert set(found) == {"channel-pruning", "int8"}
    pruning, int8 = found["channel-pruning"], found["int8"]
    assert (pruning["stage_after"], int8["stage_after"]) == ("baseline", "channel-pruning")
    assert pruning["own_drop"] == pytest.approx(7)
    assert int8["own_drop"] == pytest.approx(-5)  # it got five more right than what it was given
    low, high = newcombe_paired(90, 5, 0, 5)
    assert (int8["own_drop_low"], int8["own_drop_high"]) == pytest.approx((-100 * high, -100 * low))
    assert pruning["own_speedup"] == pytest.approx(2, rel=0.02)
    assert int8["own_speedup"] == pytest.approx(2, rel=0.02)
    assert int8["own_speedup_low"] < 2 < int8["own_speedup_high"] or int8["own_speedup_low"] > 1.9
    assert (pruning["own_compression"], int8["own_compression"]) == pytest.approx((1000 / 600, 3))


def test_stages_that_never_ran_side_by_side_are_compared_through_the_anchor(tmp_path: Path) -> None:
    run = staged_run(tmp_path)
    made = tuple(
        replace(item, sets=(), latency=records.latency(4 / speed, speed_up=speed) if speed > 1 else item.latency)
        for item, speed in zip(run.records, (1.0, 2.0, 6.0), strict=True)
    )
    found = {item["stage_step"]: item for item in stage_effects(replace(run, records=made)).values()}
    assert found["int8"]["own_speedup"] == pytest.approx(3)
    assert found["int8"]["own_speedup_low"] is None


def test_the_board_has_the_section_only_where_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_stages = render(table(staged_run(tmp_path / "a")), "md").decode()
    assert "own speed-up" in with_stages
    assert "| int8 | onnxruntime | channel-pruning |" in with_stages
    assert "own speed-up" not in render(table(staged_run(tmp_path / "b", stages=False)), "md").decode()
