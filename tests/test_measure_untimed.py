from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_targets import install, member, profile

from harness.measure import memory
from harness.measure.memory import measure_memory
from harness.measure.untimed import Untimed, run_untimed
from harness.types import Failure, Memory, Options

MIB = 2**20


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)


def run(cell, tmp_path, **changes):
    known = {"batch": 16, "items": 70, "outputs_to": tmp_path / "out", "timeout_s": 20.0} | changes
    return run_untimed(cell, **known)


@pytest.mark.parametrize(("fixed", "batch", "used"), [(0, 16, 16), (4, 16, 4), (0, 1, 1), (0, 500, 500)])
def test_outputs_are_those_of_every_item_whatever_the_batch(tmp_path, fixed, batch, used):
    cell = member(tmp_path, "x", batch=fixed, ms=0.0, options=Options(batch=fixed or 1))
    found = run(cell, tmp_path, batch=batch)
    assert isinstance(found, Untimed)
    assert found.batch == used
    items = np.load(tmp_path / "evaluation" / "x.npy")
    np.testing.assert_array_equal(np.load(found.outputs["y"]), (items[:, :2] * 2).astype(np.float32))
    assert [placement.op for placement in found.placements] == ["Spin"]
    assert found.effective == {"threads": "1"}
    assert any(item.path.startswith("numpy/") and item.build_id for item in found.loaded.objects)
    assert not any(item.path.startswith("/") for item in found.loaded.objects)


def test_fewer_items_can_be_asked_for(tmp_path):
    found = run(member(tmp_path, "x", ms=0.0), tmp_path, items=10)
    assert np.load(found.outputs["y"]).shape == (10, 2)


def test_an_output_that_is_not_batched_is_refused(tmp_path):
    found = run(member(tmp_path, "x", mode="cut", ms=0.0), tmp_path)
    assert isinstance(found, Failure)
    assert "first dimension is not the batch of 16" in found.reason
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("mode", "words"), [("segfault", "SIGSEGV"), ("raise", "bad weights")])
def test_a_failure_of_the_placement_costs_the_placement_alone(tmp_path, mode, words):
    found = run(member(tmp_path, "x", mode=mode, at="placements", ms=0.0), tmp_path)
    assert isinstance(found, Untimed)
    assert words in found.placement_reason
    assert np.load(found.outputs["y"]).shape == (70, 2)


def test_placement_alone(tmp_path):
    found = run(member(tmp_path, "x", ms=0.0), tmp_path, purposes={"placement"}, outputs_to=None)
    assert found.outputs == {}
    assert found.placements
    assert found.loaded.objects
    failed = run(member(tmp_path, "x", mode="raise", at="open"), tmp_path, purposes={"placement"}, outputs_to=None)
    assert (failed.status, failed.stage) == ("failed", "placement")


def test_missing_items_are_named(tmp_path):
    cell = member(tmp_path, "x")
    (tmp_path / "evaluation" / "x.npy").unlink()
    found = run(cell, tmp_path)
    assert "x.npy" in found.reason


def test_memory_grows_by_what_the_session_holds(tmp_path):
    quick = profile()
    small = measure_memory(member(tmp_path, "x", ms=0.0), quick, timeout_s=20.0)
    large = measure_memory(member(tmp_path, "x", ms=0.0, mib=64), quick, timeout_s=20.0)
    assert isinstance(small, Memory)
    assert isinstance(large, Memory)
    for field in ("load_peak_bytes", "run_peak_bytes", "peak_bytes", "steady_bytes"):
        assert getattr(large, field) - getattr(small, field) == pytest.approx(64 * MIB, abs=1.5 * MIB)
    assert abs(large.floor_bytes - small.floor_bytes) < 1.5 * MIB
    assert small.floor_bytes <= small.peak_bytes
    assert (small.launches, small.device_bytes) == (1, None)


def test_a_parent_that_holds_much_does_not_show(tmp_path):
    held = np.ones(100 * MIB // 8)
    found = measure_memory(member(tmp_path, "x", ms=0.0), profile(memory_launches=2), timeout_s=20.0)
    assert found.peak_bytes < held.nbytes
    assert found.launches == 2


def test_a_model_over_the_limit_is_out_of_memory(tmp_path):
    found = measure_memory(
        member(tmp_path, "x", ms=0.0, mib=2048), profile(), timeout_s=20.0, memory_limit_bytes=1024 * MIB
    )
    assert (found.status, found.stage) == ("oom", "memory")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps VmHWM")
def test_the_peak_of_loading_is_not_the_peak_of_running(tmp_path):
    found = measure_memory(member(tmp_path, "x", ms=0.0, scratch=64), profile(), timeout_s=20.0)
    assert found.reason == ""
    assert found.load_peak_bytes - found.run_peak_bytes == pytest.approx(64 * MIB, abs=3 * MIB)
    assert found.peak_bytes == found.load_peak_bytes


def test_a_host_without_vmhwm_says_that_memory_is_unavailable(tmp_path, monkeypatch):
    def status(pid, field):
        raise LookupError(f"the kernel reports no {field}")

    monkeypatch.setattr(memory, "status_bytes", status)
    found = measure_memory(member(tmp_path, "x", ms=0.0), profile(), timeout_s=20.0)
    assert found.status == "unavailable"
    assert "VmRSS" in found.reason
