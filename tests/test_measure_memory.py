"""Memory of known size and kind, measured in fresh processes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.measure import Member, measure_memory
from harness.measure import min_fit as fitting
from harness.measure.memory import mapped_bytes, rollup
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


def test_what_a_stranger_maps_too_does_not_change_the_reading(tmp_path):
    """Another process that loads the same library halves its proportional share."""
    file = tmp_path / "library.so"
    file.write_bytes(b"x" * 32 * MIB)
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as stream: area = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(area[place] for place in range(0, len(area), 4096))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )

    @contextlib.contextmanager
    def mapping():
        command = [sys.executable, "-c", code, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            yield process.pid
            process.stdin.close()

    with mapping() as pid:
        alone = rollup(pid)
        with mapping():
            shared = rollup(pid)
    assert shared["Pss_File"] < alone["Pss_File"] - 15 * MIB
    assert mapped_bytes(shared) == pytest.approx(mapped_bytes(alone), abs=MIB // 4)
    assert mapped_bytes(alone) > 32 * MIB


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


def test_a_cgroup_that_fails_within_the_search_costs_the_figure_and_not_the_run(member, monkeypatch):
    times = iter([100.0, 101.0])

    def least(_member, _limit, _timeout_s):
        for found in times:
            return found
        raise OSError(errno.EBUSY, "Device or resource busy", "/sys/fs/cgroup/harness-fit-1")

    monkeypatch.setattr(fitting, "_least_ns", least)
    fit, reason = min_fit(member(), 100 * MIB, timeout_s=60)
    assert fit is None
    assert reason.startswith("cgroups are not writable: [Errno 16]")


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A folder that behaves as the kernel's: the limit's file comes and goes with a cgroup, which may be busy."""
    root, busy = tmp_path / "cgroup", [0]
    root.mkdir()
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(folder, *args, **kwargs):
        mkdir(folder, *args, **kwargs)
        if folder.parent == root:
            (folder / "memory.max").touch()

    def remove(folder):
        if folder.parent == root and busy[0]:
            busy[0] -= 1
            raise OSError(errno.EBUSY, "Device or resource busy", str(folder))
        (folder / "memory.max").unlink(missing_ok=True)
        rmdir(folder)

    monkeypatch.setattr(fitting, "_parent", lambda: root)
    monkeypatch.setattr(fitting, "REMOVE_S", 0.2)
    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)
    return root, busy


def test_a_cgroup_is_removed_once_the_kernel_lets_go_of_it(cgroups):
    root, busy = cgroups
    busy[0] = 3
    with limited(MIB) as folder:
        assert (folder / "memory.max").read_text() == str(MIB)
    assert not list(root.iterdir())


def test_a_cgroup_that_stays_is_told_and_stops_nothing(cgroups, caplog):
    root, busy = cgroups
    (root / f"harness-fit-{MIB}").mkdir()  # of a run that was killed
    busy[0] = 10**9
    with caplog.at_level(logging.WARNING, logger="harness"), limited(MIB):
        pass
    assert "could not be removed" in caplog.text
