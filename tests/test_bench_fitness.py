"""The queue pauses while the host is unfit, and a calm window is three probes that agree."""

from __future__ import annotations

import dataclasses

from launches import QUIET, launch_set

from harness.bench import fitness
from harness.bench.fitness import Fitness
from harness.measure.calm import Window, disturbed
from harness.measure.noise import Probe
from harness.types import LaunchSet

NOISY = dataclasses.replace(QUIET, verdict="noisy", reasons=("noisy: hiccup 0.5 (ok <= 0.002)",))


def item(noise) -> LaunchSet:
    return launch_set(0, {"a": [[100] * 9]}, noise=noise)


def test_three_noisy_sets_in_a_row_pause_the_queue_and_an_unfit_host_is_flagged(monkeypatch):
    asked, said = [], []

    def wait(cpus, *, limit_s, on_wait):
        asked.append(limit_s)
        return Window(False, limit_s, (), "50.0% of the time the CPU was not ours")

    monkeypatch.setattr(fitness, "wait_calm", wait)
    watched = Fitness(30.0)
    for noise in (NOISY, NOISY, QUIET, NOISY, NOISY):
        watched.watch(item(noise), said.append)
    assert asked == []
    watched.watch(item(NOISY), said.append)
    assert asked == [30.0]
    assert "unfit" in watched.unfit
    assert "not ours" in watched.facts([], "host")["host_verdict"]
    assert any("the queue pauses" in text for text in said)


def test_the_quick_profile_never_waits(monkeypatch):
    monkeypatch.setattr(fitness, "wait_calm", lambda *_args, **_more: 1 / 0)
    watched = Fitness(0.0)
    for _ in range(9):
        watched.watch(item(NOISY), print)
    assert watched.unfit == ""


def test_the_tier_comes_from_the_canary(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    slow = dataclasses.replace(QUIET, canary_before_gflops=50.0, canary_after_gflops=50.0)
    steady = [launch_set(i, {"a": [[100] * 9]}) for i in range(60)]
    mixed = [launch_set(i, {"a": [[100] * 9]}, noise=slow if i % 5 == 0 else QUIET) for i in range(60)]
    assert Fitness(0.0).facts(steady, "h")["host_tier"] == "T1"
    assert Fitness(0.0).facts(mixed, "h")["host_tier"] == "T2"
    assert "not known" in Fitness(0.0).facts(steady[:10], "h")["host_tier"]


def test_calm_is_no_lost_time_and_one_speed():
    assert disturbed([Probe(0.001, 100.0), Probe(0.0, 101.0), Probe(0.0, 100.5)]) == ""
    assert "not ours" in disturbed([Probe(0.02, 100.0), Probe(0.0, 100.0)])
    assert "canary" in disturbed([Probe(0.0, 100.0), Probe(0.0, 55.0)])
