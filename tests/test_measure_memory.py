"""Memory of known size and kind, measured in fresh processes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from harness.measure import Member, measure_memory
from harness.measure.min_fit import limited, min_fit
from harness.profiles import PROFILES
from harness.types import Artifact, Memory, Options, Step

MIB = 2**20
LIBRARIES = 4 * MIB


@pytest.fixture
def member(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((8, 4), np.float32))
    (tmp_path / "model.onnx").write_bytes(b"a" * 5000)
    declared = {"inputs": {"x": {"dtype": "float32", "shape": [None, 4]}}, "outputs": ["y"]}
    (tmp_path / "null.json").write_text(json.dumps(declared))
    artifact = Artifact(tmp_path / "model.onnx", "onnx", str(tmp_path), "float32", "", 5000, 5000)

    def make(**params):
        return Member("cell", "null", Step("hoard", params), params, artifact, Options(), tmp_path)

    return make


def measured(member, **params) -> Memory:
    found = measure_memory(member(**params), PROFILES["quick"], timeout_s=60)
    assert isinstance(found, Memory)
    return found


def test_anonymous_and_mapped_memory_are_told_apart_to_a_mebibyte(member):
    none, anon, mapped, burst = (
        measured(member, **p) for p in ({}, {"anon_mib": 64}, {"file_mib": 64}, {"burst_mib": 64})
    )
    assert anon.anon_bytes - none.anon_bytes == pytest.approx(64 * MIB, abs=MIB)
    # The kernel maps pages of libraries around a fault as far as they are cached, so mapped pages vary by some.
    assert anon.file_mapped_bytes - none.file_mapped_bytes == pytest.approx(0, abs=LIBRARIES)
    assert mapped.file_mapped_bytes - none.file_mapped_bytes == pytest.approx(64 * MIB, abs=LIBRARIES)
    assert mapped.anon_bytes - none.anon_bytes == pytest.approx(0, abs=MIB)
    for found in (anon, mapped, burst):
        assert found.load_peak_bytes - none.load_peak_bytes == pytest.approx(64 * MIB, abs=LIBRARIES)
        assert found.delta_bytes - none.delta_bytes == pytest.approx(64 * MIB, abs=LIBRARIES)
    assert burst.run_peak_bytes - none.run_peak_bytes == pytest.approx(0, abs=LIBRARIES)
    assert anon.steady_uss_bytes - none.steady_uss_bytes == pytest.approx(64 * MIB, abs=MIB)
    assert (none.file_bytes, none.max_peak_bytes) == (5000, none.peak_bytes)
    assert none.gzip_bytes < 100
    assert "publish" in none.unavailable["min_fit_bytes"]


def test_a_runtime_whose_probe_fails_has_no_floor_and_says_why(member):
    broken = dataclasses.replace(
        member(), target=Step("failing", {"at": "probe"}), params={"at": "probe"}, cell_id="broken"
    )
    found = measure_memory(broken, PROFILES["quick"], timeout_s=60)
    assert isinstance(found, Memory)
    assert (found.runtime_floor_bytes, found.delta_bytes) == (None, None)
    assert "asked to fail" in found.unavailable["runtime_floor_bytes"]


@pytest.mark.slow
def test_the_smallest_limit_holds_what_cannot_be_dropped(member):
    try:
        with limited(2**30):
            pass
    except OSError as error:
        pytest.skip(f"memory cgroups are not writable: {error}")
    fit, reason = min_fit(member(anon_mib=128), 165 * MIB, timeout_s=60)
    assert reason == ""
    assert 128 * MIB < fit < 180 * MIB


def test_without_writable_cgroups_the_reason_is_told(member, monkeypatch):
    monkeypatch.setattr("harness.measure.cpus.cgroup_folders", lambda controller: ())
    fit, reason = min_fit(member(), MIB, timeout_s=60)
    assert fit is None
    assert "no memory cgroup is mounted" in reason
