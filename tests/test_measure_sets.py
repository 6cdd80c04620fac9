from __future__ import annotations

import time
from pathlib import Path

import pytest
from bench_targets import install, member, profile

from harness import codec
from harness.measure import cpus
from harness.measure.sets import run_set
from harness.stats import summarise
from harness.types import LaunchSet


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)


def run(members, *, anchor="anchor", index=0, timeout_s=20.0, limit=None, **changes) -> LaunchSet:
    limits = {"timeout_s": timeout_s, "memory_limit_bytes": limit}
    return run_set("group", index, "variants", anchor, members, profile(**changes), 7, **limits)


def alive(pids) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def least(result: LaunchSet) -> dict[str, float]:
    """The shortest sample of each cell: what a shared host adds is never negative."""
    return {launch.cell_id: min(ns for batch in launch.batches for ns in batch.ns) for launch in result.launches}


def test_members_are_measured_side_by_side_and_killed(tmp_path):
    members = [member(tmp_path, "anchor", ms=2), member(tmp_path, "half", ms=1), member(tmp_path, "slow", ms=4)]
    wanted = {
        "anchor": pytest.approx(2e6, rel=0.02),
        "half": pytest.approx(1e6, rel=0.02),
        "slow": pytest.approx(4e6, rel=0.02),
    }
    for _attempt in range(3):  # other work on the host may lengthen every call of a member, never shorten one
        result = run(members)
        assert not result.failures
        found = least(result)
        if found == wanted:
            break
    assert found == wanted
    assert found["slow"] / found["anchor"] == pytest.approx(2, rel=0.02)
    for launch in result.launches:
        assert [batch.round for batch in launch.batches] == list(range(6))
        assert all(len(batch.ns) >= 5 for batch in launch.batches)
        assert launch.affinity == cpus.choose(1)
        assert launch.threads_effective == "1"
        assert min(launch.ready_ns, launch.load_ns, launch.first_ns) > 0
        assert launch.noise.canary_before_gflops > 0
    assert not alive(launch.pid for launch in result.launches)
    assert codec.loads(LaunchSet, codec.dumps(result)) == result


def test_positions_are_balanced_and_only_one_member_runs_at_a_time(tmp_path):
    result = run([member(tmp_path, "anchor", ms=1), member(tmp_path, "other", ms=1)])
    first = {(batch.round, batch.position): launch.cell_id for launch in result.launches for batch in launch.batches}
    assert len(first) == 12
    assert sum(first[number, 0] == "anchor" for number in range(6)) == 3


@pytest.mark.parametrize(
    ("mode", "at", "status", "words"),
    [
        ("segfault", "run", "crashed", "SIGSEGV"),
        ("leave", "open", "crashed", "status 0"),
        ("hang", "run", "timeout", "no answer"),
        ("raise", "open", "failed", "ValueError: bad weights"),
        ("unsupported", "open", "not-applicable", "no kernel"),
    ],
)
def test_a_member_that_fails_is_recorded_beside_finished_neighbours(tmp_path, mode, at, status, words):
    bad = member(tmp_path, "bad", mode=mode, at=at, ms=1)
    result = run([member(tmp_path, "anchor", ms=1), bad, member(tmp_path, "good", ms=1)], timeout_s=1.5, rounds=2)
    assert {launch.cell_id for launch in result.launches} == {"anchor", "good"}
    failure = result.failures["bad"]
    assert (failure.status, failure.stage, failure.blame) == (status, "latency", "spin-target")
    assert words in failure.reason
    again = [launch for launch in result.launches if launch.cell_id == "anchor"]
    assert len(again) == (1 if mode == "unsupported" else 2)  # once more, with the anchor alone
    assert not alive(launch.pid for launch in result.launches)


def test_what_a_crashed_worker_printed_is_in_the_reason(tmp_path):
    result = run([member(tmp_path, "anchor", mode="segfault", at="run")], rounds=2)
    assert "about to fall" in result.failures["anchor"].reason


def test_a_member_that_eats_memory_is_out_of_memory_under_the_limit(tmp_path):
    bad = member(tmp_path, "bad", mode="eat", at="run", ms=1)
    result = run([member(tmp_path, "anchor", ms=1), bad], limit=2**30, rounds=2)
    assert result.failures["bad"].status == "oom"
    assert "anchor" in least(result)


def test_a_second_try_pairs_with_its_own_anchor_by_round(tmp_path, monkeypatch):
    from harness.measure import crew

    wanted, original = [True], crew.Crew._warm

    def once(self, player):
        if player.member.cell_id == "shaky" and wanted:
            wanted.clear()
            player.worker.kill()
            self.failures["shaky"] = player.worker.failed("crashed", "first try")
            return
        original(self, player)

    monkeypatch.setattr(crew.Crew, "_warm", once)
    result = run([member(tmp_path, "anchor", ms=1), member(tmp_path, "shaky", ms=1)], rounds=2)
    assert not result.failures
    rounds = [(launch.cell_id, [batch.round for batch in launch.batches]) for launch in result.launches]
    assert ("anchor", [0, 1]) in rounds
    assert ("anchor", [2, 3]) in rounds
    assert ("shaky", [2, 3]) in rounds


def test_an_unknown_plugin_is_a_failure_that_names_it(tmp_path):
    import dataclasses

    lost = dataclasses.replace(member(tmp_path, "anchor"), plugin="nowhere")
    failure = run([lost], rounds=2).failures["anchor"]
    assert failure.status == "failed"
    assert "spin" in failure.reason


def test_an_interpreter_that_is_not_there_is_a_failure(tmp_path):
    import dataclasses

    lost = dataclasses.replace(member(tmp_path, "lost"), python=str(tmp_path / "no-python"))
    result = run([member(tmp_path, "anchor", ms=1), lost], rounds=2)
    assert "no-python" in result.failures["lost"].reason
    assert "anchor" in least(result)


def test_ctrl_c_leaves_no_process(tmp_path, monkeypatch):
    from harness.measure import crew

    seen = []

    def stop(self, order, first):
        seen.extend(player.worker.pid for player in self.players.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(crew.Crew, "rounds", stop)
    with pytest.raises(KeyboardInterrupt):
        run([member(tmp_path, "anchor", ms=1), member(tmp_path, "other", ms=1)])
    assert len(seen) == 2
    assert not alive(seen)


def test_a_noisy_set_is_repeated_and_what_is_discarded_is_kept(tmp_path, monkeypatch):
    import dataclasses

    from harness.measure import sets

    original, calls = sets.assess, []

    def noisy_first(*args, **kwargs):
        calls.append(1)
        return dataclasses.replace(original(*args, **kwargs), verdict="noisy" if len(calls) == 1 else "ok")

    waits = []
    monkeypatch.setattr(sets, "assess", noisy_first)
    monkeypatch.setattr(sets, "wait_calm", lambda cpus, *, limit_s: waits.append((len(cpus), limit_s)))
    result = run([member(tmp_path, "anchor", ms=1)], rounds=2, retries=2, backoff_seconds=30.0)
    assert [bool(launch.discarded) for launch in result.launches] == [True, False]
    assert waits == [(1, 30.0)]  # once: before the repetition, not after the attempt that stands


def test_the_start_of_a_member_holds_nothing_of_the_warm_up_before_it(tmp_path):
    cells = [member(tmp_path, "anchor", ms=1), member(tmp_path, "other", ms=1), member(tmp_path, "third", ms=1)]
    result = run(cells, rounds=2, warmup_ns=3_000_000_000, warmup_max_ns=4_000_000_000)
    assert [launch.order for launch in result.launches] == [0, 1, 2]
    assert all(launch.warmup_ns >= 3_000_000_000 for launch in result.launches)
    starts = {launch.order: launch.ready_ns for launch in result.launches}
    assert max(starts.values()) < 2_500_000_000, starts  # a start takes 0.3 s, beside other work some times that
    found = summarise("other", "anchor", [result], profile())
    assert found.time_to_first_inference_ns < 2_500_000_000


def test_the_probe_does_not_start_beside_a_member_on_its_cpu(tmp_path, monkeypatch):
    import os

    from harness.measure import crew

    starts, original = [], crew.Crew._worker

    def watched(self, module, *args):
        starts.append((module, os.sched_getaffinity(0), self.taken))
        return original(self, module, *args)

    monkeypatch.setattr(crew.Crew, "_worker", watched)
    run([member(tmp_path, "anchor", ms=1)], rounds=2)
    (probe, on, taken), (_member, beside, _taken) = starts
    assert probe == crew.PROBE
    if len(cpus.allowed()) > 1:
        assert on == set(taken)
        assert not on & beside


def test_a_slow_member_does_not_outlive_its_budget(tmp_path):
    start = time.monotonic()
    result = run([member(tmp_path, "anchor", mode="hang", at="open")], timeout_s=0.7)
    assert result.failures["anchor"].status == "timeout"
    assert time.monotonic() - start < 8


@pytest.mark.slow
def test_a_known_ratio_and_an_equal_pair_come_out_of_six_sets(tmp_path):
    cells = [member(tmp_path, "anchor", ms=2), member(tmp_path, "same", ms=2.0), member(tmp_path, "twice", ms=4)]
    sets = [run(cells, index=index) for index in range(6)]
    for cell_id, truth in (("twice", 2.0), ("same", 1.0)):
        found = summarise(cell_id, "anchor", sets, profile())
        assert found.ratio_p10.low <= truth * 1.02
        assert found.ratio_p10.high >= truth * 0.98
        if found.noise == "ok":  # beside noisy neighbours the medians of a spin to a deadline say little
            assert found.ratio.low <= truth <= found.ratio.high
            assert found.verdict == {"twice": "slower", "same": "equivalent"}[cell_id]
        else:
            assert found.reasons
