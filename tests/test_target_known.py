"""Targets of known truth: they take as long, hold as much and fail as they are told."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from harness import params
from harness.api import HarnessError, Model, Options, SupportsBind, TensorSpec
from harness.plan import Request, resolve_targets
from harness.plugins import load_registry
from harness_null import harness_targets

SPECS = {spec.name: spec for spec in harness_targets()}
FEED = {"x": np.zeros((1, 3), np.float32)}


def opened(tmp_path, name, **given):
    spec = SPECS[name]
    built = params.build(spec.params, given, owner=name)
    (tmp_path / "model.onnx").write_bytes(b"anything")
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    model = Model("onnx", tmp_path / "model.onnx", {"x": TensorSpec("float32", (None, 3))}, ("y",))
    artifact = spec.lower(model, built, Options(), SimpleNamespace(out=out))
    return spec.open(artifact, built, Options(), "latency")


def least_ms(call, repeats=20):
    """The least of some: what a busy machine adds is not the target's."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - start) / 1e6)
    return min(found)


def test_spin_takes_its_time_and_bound_inputs_take_off_the_transfer(tmp_path):
    session = opened(tmp_path, "spin", ms=2.0, transfer_ms=1.0)
    assert isinstance(session, SupportsBind)
    bound = session.bind(FEED)
    assert 3.0 <= least_ms(lambda: session.run(FEED)) < 3.9
    assert 2.0 <= least_ms(bound) < 2.9


def test_sleep_takes_at_least_its_time_without_computing(tmp_path):
    session = opened(tmp_path, "sleep", ms=2.0)
    cpu = time.process_time_ns()
    assert least_ms(lambda: session.run(FEED)) >= 2.0
    assert time.process_time_ns() - cpu < 20 * 1e6


def test_work_grows_with_its_blocks(tmp_path):
    small, large = opened(tmp_path, "work", blocks=5), opened(tmp_path, "work", blocks=50)
    ratio = least_ms(lambda: large.run(FEED)) / least_ms(lambda: small.run(FEED))
    assert 5 < ratio < 20


def test_noisy_spikes_take_ten_times_as_long(tmp_path):
    session = opened(tmp_path, "noisy", ms=0.5, jitter=0.0, launch_jitter=0.0, spikes=1.0)
    assert 5.0 <= least_ms(lambda: session.run(FEED)) < 9


def test_slow_load_is_slow_where_it_says(tmp_path):
    begin = time.perf_counter()
    session = opened(tmp_path, "slow-load", load_ms=50, first_ms=20, ms=1)
    assert time.perf_counter() - begin >= 0.05
    assert least_ms(lambda: session.run(FEED), 1) >= 21
    assert 1 <= least_ms(lambda: session.run(FEED)) < 5


def test_failing_fails_where_and_after_how_many_it_is_told(tmp_path):
    session = opened(tmp_path, "failing", at="run", after=2)
    session.run(FEED)
    session.run(FEED)
    with pytest.raises(HarnessError, match="asked to fail"):
        session.run(FEED)
    with pytest.raises(MemoryError):
        opened(tmp_path, "failing", at="open", how="memory")
    with pytest.raises(HarnessError):
        SPECS["failing"].probe(SPECS["failing"].params(at="probe"))


def test_echo_flips_the_first_items_only(tmp_path):
    session = opened(tmp_path, "echo", flips=3)
    items = np.eye(3, dtype=np.float32)[np.arange(8) % 3] + np.float32(0.1) * np.arange(3)
    kept = [session.run({"x": items[start : start + 2]})["y"] for start in range(0, 8, 2)]
    changed = np.concatenate(kept).argmax(1) != items.argmax(1)
    assert changed.tolist() == [True] * 3 + [False] * 5


def test_hoard_gives_back_what_it_held(tmp_path):
    session = opened(tmp_path, "hoard", anon_mib=2, file_mib=2, burst_mib=2)
    session.close()
    session.close()


def test_all_leaves_them_out_and_a_name_takes_them():
    registry = load_registry(only={"null"})
    assert set(resolve_targets(Request(targets=("all",)), registry)) == {"null"}
    assert set(resolve_targets(Request(targets=("spin:ms=2",)), registry)) == {"spin:ms=2.0"}
    assert not any(spec.ranked for spec in SPECS.values())
