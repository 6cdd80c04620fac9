"""Scenarios through LoadGen in a real worker, and what is said of them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from records import record

from harness.bench.scenarios import measure, summaries
from harness.leaderboard.beyond import beyond, sustained_order
from harness.measure import Member
from harness.measure.scenarios import run_scenario
from harness.profiles import PROFILES
from harness.types import Artifact, Failure, Options, ScenarioResult, Step

QUICK = dataclasses.replace(PROFILES["quick"], warmup_ns=20_000_000, warmup_max_ns=60_000_000)


@pytest.fixture
def member(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((16, 4), np.float32))
    (tmp_path / "model.onnx").write_bytes(b"a")
    declared = {"inputs": {"x": {"dtype": "float32", "shape": [None, 4]}}, "outputs": ["y"]}
    (tmp_path / "null.json").write_text(json.dumps(declared))
    artifact = Artifact(tmp_path / "model.onnx", "onnx", "0", "float32", "", 1, 1)

    def make(target="spin", batch=1, **params):
        return Member("cell", "null", Step(target, params), params, artifact, Options(batch=batch), tmp_path)

    return make


def test_single_stream_reads_what_is_spun(member):
    pytest.importorskip("mlperf_loadgen")
    found = run_scenario(member(ms=3.0), "single_stream", QUICK, seed=0, timeout_s=60, seconds=0.5)
    assert isinstance(found, ScenarioResult)
    assert found.figures["p50_ns"] >= 3e6
    assert found.figures["p50_ns"] <= found.figures["p90_ns"] <= found.figures["p99_ns"]


def test_offline_counts_items_of_a_batch(member):
    pytest.importorskip("mlperf_loadgen")
    found = run_scenario(member(batch=8, ms=2.0), "offline", QUICK, seed=0, timeout_s=60, seconds=0.4)
    assert isinstance(found, ScenarioResult)
    assert 400 < found.figures["samples_per_s"] <= 4000  # 8 items in at least 2 ms


def test_the_server_rate_keeps_its_limit_and_stays_below_the_closed_loop(member):
    pytest.importorskip("mlperf_loadgen")
    found = run_scenario(member(ms=2.0), "server", QUICK, seed=0, timeout_s=120, bound_ns=200_000_000, seconds=0.3)
    assert isinstance(found, ScenarioResult)
    assert 0 < found.figures["qps"] <= 500
    assert found.figures["p99_limit_ns"] == 200_000_000


def test_a_session_that_fails_is_a_failure_with_its_name(member):
    pytest.importorskip("mlperf_loadgen")
    found = run_scenario(member("failing", at="open"), "offline", QUICK, seed=0, timeout_s=60)
    assert isinstance(found, Failure)
    assert "asked to fail" in found.reason
    part = measure(member("failing", at="open"), "offline", QUICK, seed=0, timeout_s=60)
    assert "asked to fail" in part.result.reason


def test_queries_of_one_item_refuse_a_batch(member):
    part = measure(member(batch=4), "server", QUICK, seed=0, timeout_s=60)
    assert "batch is not 1" in part.result.reason


def made(method: str, p50_ns: float, sustained_ns: float, batch: int = 1, rate: float = 100.0):
    found = record(method, "onnxruntime")
    point = dataclasses.replace(found.latency.p50_ns, point=p50_ns)
    figures = {"p50_ns": sustained_ns, "slowdown": 1.0}
    return dataclasses.replace(
        found,
        cell=dataclasses.replace(found.cell, options=Options(batch=batch)),
        latency=dataclasses.replace(found.latency, p50_ns=point),
        scenarios=(
            ScenarioResult("sustained", figures, "mlcommons-loadgen"),
            ScenarioResult("offline", {"samples_per_s": rate, "batch": float(batch)}, "mlcommons-loadgen"),
        ),
    )


def test_the_order_under_lasting_load_is_compared_with_that_of_bursts():
    shapes = [("baseline", 2e6, 2e6), ("int8", 1e6, 1.5e6), ("fp16", 1.2e6, 1.3e6), ("int8-dynamic", 1.01e6, 1.51e6)]
    rows = [
        {"method": method, "target": "onnxruntime", "p50_ns": burst, "sustained_p50_ns": lasting}
        for method, burst, lasting in shapes
    ]
    (order,) = sustained_order(rows)
    assert "3 of 5 pairs keep the order of the bursts; 1 more are within 5%" in order
    assert order.endswith(
        "turned: int8 on onnxruntime / fp16 on onnxruntime, fp16 on onnxruntime / int8-dynamic on onnxruntime"
    )
    assert list(sustained_order(rows[:1])) == []


def test_scenarios_are_columns_with_their_validity():
    driven = dataclasses.replace(
        record("int8", "onnxruntime"),
        scenarios=(
            ScenarioResult("offline", {"samples_per_s": 500.0, "valid": 1.0}),
            ScenarioResult("server", {"qps": 0.0, "p99_limit_ns": 5e6}),
            ScenarioResult("single_stream", {}, reason="crashed: asked to fail"),
            ScenarioResult("sustained", {"p50_ns": 1e6, "slowdown": 1.2, "valid": 0.0}),
        ),
    )
    found = beyond(driven)
    assert (found["offline_per_s"], found["sustained_slowdown"], found["server_p99_limit_ns"]) == (500.0, 1.2, 5e6)
    for part in ("no rate keeps the limit", "asked to fail", "sustained: LoadGen calls the run invalid"):
        assert part in found["scenarios_doubt"]
    assert "offline:" not in found["scenarios_doubt"]


def test_the_best_batch_of_a_sweep_is_named():
    sweep = [made("int8", 1e6, 1e6, batch, rate) for batch, rate in ((1, 100.0), (8, 900.0), (32, 700.0))]
    assert any("best at batch 8: 900 items/s" in line for line in summaries(sweep))
