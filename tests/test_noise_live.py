"""Disturbances made on purpose while launch-sets run: each is flagged by its own name."""

from __future__ import annotations

import pytest

from harness.measure import cpus
from harness.plugins import load_registry
from harness.selftest import detectors
from harness.selftest.lab import Lab

(CPU,) = cpus.choose(1)
MADE = {
    "a stressed core": (lambda: detectors.hog(detectors._SPIN, CPU), ("cpu/wall", "hiccup", "involuntary switches")),
    "a stopped worker": (detectors.stopped_workers, ("cpu/wall",)),
    "a throttled cgroup": (detectors.throttled, ("throttled periods",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_disturbance_is_flagged_by_its_own_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    disturb, expected = MADE[name]
    lab = Lab(load_registry(only={"null"}), tmp_path, full=False, calm_s=0, note=print)
    line = detectors._flagged(lab, name, disturb, expected)
    if line.verdict == "not-evaluable":
        pytest.skip(line.reason)
    assert line.verdict == "pass", line.reason
    assert line.figures["flagged"] == line.figures["trials"] == 2
