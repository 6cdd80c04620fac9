from __future__ import annotations

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launches import QUIET

from harness import codec, feeds
from harness.api import Options, TensorSpec
from harness.errors import HarnessError
from harness.measure import clean, counters, cpus, host, inputs, loops, noise, probe
from harness.measure.clean import Usual
from harness.measure.crew import Crew, effective_threads
from harness.measure.member import WarmUp
from harness.measure.noise import THRESHOLDS, Probe
from harness.measure.order import generator, schedule
from harness.profiles import PROFILES
from harness.types import Artifact, Batch

BUDGET = WarmUp(10, 2_000_000, 200_000_000, 5, 1_000_000, 50_000_000)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_every_member_runs_once_in_every_round(count, rounds, seed):
    names = [f"m{place}" for place in range(count)]
    order = schedule(names, rounds, random.Random(seed))
    assert len(order) == rounds
    assert all(sorted(row) == sorted(names) for row in order)
    assert order == schedule(names, rounds, random.Random(seed))


@pytest.mark.parametrize("count", [3, 4, 8])
def test_a_block_is_a_latin_square(count):
    names = [f"m{place}" for place in range(count)]
    order = schedule(names, count, generator(1, "group", 0))
    for position in range(count):
        assert Counter(row[position] for row in order) == Counter(names)


def test_two_members_alternate_abba():
    for seed in range(20):
        order = schedule(["a", "b"], 6, random.Random(seed))
        assert all(order[pair] == order[pair + 1][::-1] for pair in (0, 2, 4))
    assert schedule(["a", "b"], 6, random.Random(1)) != schedule(["a", "b"], 6, random.Random(2))


class Time:
    """A clock that only the runs of a session move, so that no neighbour can disturb it."""

    def __init__(self, monkeypatch, read_ns=100):
        self.now, self.read_ns, self.calls = 0, read_ns, 0
        monkeypatch.setattr(loops, "clock", self)

    def __call__(self):
        self.now += self.read_ns
        return self.now

    def session(self, ns):
        """Return a run that takes ``ns(number of the call)``."""

        def run(_item):
            self.calls += 1
            self.now += int(ns(self.calls))

        return run


def test_windows_agree_within_the_tolerances_of_the_protocol():
    assert loops.agree([1e6] * 20, [1.01e6] * 20)
    assert not loops.agree([1e6] * 20, [1.03e6] * 20)
    assert not loops.agree([1e6] * 20, [1e6] * 14 + [1.2e6] * 6)
    assert not loops.agree([1e6 - 3e4, 1e6, 1e6 + 3e4] * 7, [1e6] * 21)


def test_a_steady_session_is_warm_after_two_windows(monkeypatch):
    time = Time(monkeypatch)
    warmed = loops.Loop(time.session(lambda call: 1e6), [None]).warm(BUDGET)
    assert (warmed.steady, warmed.inner_loops) == (True, 1)
    assert warmed.iterations == time.calls == 2 + 2 * loops.MIN_WINDOW
    assert warmed.clock_ns == 100


def test_the_warm_up_waits_for_a_session_that_speeds_up(monkeypatch):
    time = Time(monkeypatch)
    warmed = loops.Loop(time.session(lambda call: max(1e6, 2e6 - 2e4 * call)), [None]).warm(BUDGET)
    assert warmed.steady
    assert time.calls >= 60


def test_a_session_that_never_settles_is_called_unsteady_at_the_cap(monkeypatch):
    time = Time(monkeypatch)
    warmed = loops.Loop(time.session(lambda call: 1e6 * 1.01**call), [None]).warm(BUDGET)
    assert not warmed.steady
    assert BUDGET.max_ns <= warmed.ns <= 1.1 * BUDGET.max_ns


@pytest.mark.parametrize(("grows", "steady"), [(0.0, True), (0.05, False)])
def test_a_session_too_slow_for_two_windows_is_judged_by_halves(monkeypatch, grows, steady):
    time = Time(monkeypatch)
    warmed = loops.Loop(time.session(lambda call: 2e7 * (1 + grows * call)), [None]).warm(BUDGET)
    assert warmed.steady == steady


def test_a_short_run_gets_an_inner_loop_and_all_inputs_rotate(monkeypatch):
    time = Time(monkeypatch)
    seen = Counter()
    move = time.session(lambda call: 2000)
    loop = loops.Loop(lambda item: (seen.update((item,)), move(item)), list(range(64)))
    assert loop.warm(BUDGET).inner_loops == 500
    seen.clear()
    batch = loop.batch(3, 1)
    assert (batch.round, batch.position, len(batch.ns)) == (3, 1, 5)
    assert set(batch.ns) == {2000}
    assert set(seen) == set(range(64))
    assert sum(seen.values()) == 5 * 500 + 1


def test_a_batch_lasts_for_its_budget_but_not_beyond_the_cap(monkeypatch):
    time = Time(monkeypatch)
    loop = loops.Loop(time.session(lambda call: 1e6), [None])
    loop.budget, loop.typical_ns = WarmUp(1, 1, 1, 5, 20_000_000, 50_000_000), 1e6
    batch = loop.batch(0, 0)
    assert len(batch.ns) == 20
    assert sum(batch.ns) <= batch.wall_ns <= 1.01 * sum(batch.ns)
    slow = loops.Loop(time.session(lambda call: 3e7), [None])
    slow.budget, slow.typical_ns = loop.budget, 3e7
    assert len(slow.batch(0, 0).ns) == 2


def test_garbage_collection_is_off_in_the_loop_and_on_again_after_an_error():
    import gc

    states = []
    loops.Loop(lambda item: states.append(gc.isenabled()), [None]).sample(3, 10**9)
    assert states == [False] * 3

    def broken(_item):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        loops.Loop(broken, [None]).sample(1, 10**9)
    assert gc.isenabled()


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def test_inputs_are_distinct_real_items_in_a_seeded_order(tmp_path):
    save(tmp_path, x=np.arange(400.0).reshape(200, 2), ids=np.arange(200))
    specs = {"x": TensorSpec("float32", (None, 2)), "ids": TensorSpec("int32", (None,))}
    pool = inputs.rotation(tmp_path, specs, batch=2, distinct=64, seed=1)
    assert len(pool) == 64
    assert len({item for entry in pool for item in entry["ids"].tolist()}) == 128
    for entry in pool:
        assert (entry["x"].dtype, entry["ids"].dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(entry["x"][:, 0], 2 * entry["ids"])
    again = inputs.rotation(tmp_path, specs, batch=2, distinct=64, seed=1)
    assert all((a["ids"] == b["ids"]).all() for a, b in zip(pool, again, strict=True))


def test_few_items_wrap_around_and_bad_ones_are_refused(tmp_path):
    save(tmp_path, x=np.zeros((3, 2)), y=np.zeros((4, 2)))
    spec = TensorSpec("float32", (None, 2))
    assert inputs.rotation(tmp_path, {"x": spec}, batch=2, distinct=8, seed=0)[7]["x"].shape == (2, 2)
    with pytest.raises(HarnessError, match="unequal"):
        inputs.open_items(tmp_path, {"x": spec, "y": spec})
    with pytest.raises(HarnessError, match="'z'"):
        inputs.open_items(tmp_path, {"z": spec})
    assert inputs.batch_of({"x": spec}, 5) == 5
    assert inputs.batch_of({"x": TensorSpec("float32", (2, 2))}, 5) == 2
    assert feeds.shard_name("a.plain-name_0") == "a.plain-name_0.npy"
    odd = ["out/put:0", "out_put_0", "labels", "../up", "L" * 300, "входные", "", "output-0", "a/b", "a%2Fb", ".x"]
    files = [feeds.shard_name(name) for name in odd]
    assert len(set(files)) == len(odd)
    assert "labels.npy" not in files
    assert all(len(file) < 100 and file.isascii() and "/" not in file and not file.startswith(".") for file in files)


def evidence(**changes):
    cpu_ns, switches, queued = (
        changes.pop(name, usual) for name, usual in (("cpu_ns", 50_000_000), ("switches", 0), ("queued", None))
    )
    batch = Batch(0, 0, (10**6,) * 50, 50_000_000, cpu_ns, switches, 0, 0, queued)
    known = {
        "before": Probe(0.0, 100.0), "after": Probe(0.0, 100.0), "host": counters.Disturbance(0.0, 0.0, 0),
        "threads": 1, "usual": Usual(100.0, 0.0, 0.0),
    } | changes  # fmt: skip
    return noise.assess([batch], known.pop("before"), known.pop("after"), known.pop("host"), **known)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "ok", ""),
        ({"cpu_ns": 49_000_000}, "suspect", "cpu/wall"),
        ({"cpu_ns": 25_000_000}, "noisy", "cpu/wall"),
        ({"switches": 10}, "noisy", "involuntary"),
        ({"after": Probe(0.3, 100.0)}, "noisy", "hiccup"),
        ({"after": Probe(0.0, 98.0)}, "suspect", "canary drift"),
        ({"before": Probe(0.0, 50.0), "after": Probe(0.0, 50.0)}, "noisy", "canary level"),
        ({"before": Probe(0.0, 50.0), "after": Probe(0.0, 50.0), "usual": None}, "ok", ""),
        ({"after": Probe(0.0, 95.0), "usual": Usual(100.0, 0.02, 0.02)}, "ok", ""),
        ({"after": Probe(0.0, 93.0), "usual": Usual(98.0, 0.03, 0.02)}, "suspect", "canary drift"),
        ({"before": Probe(0.0, 90.0), "after": Probe(0.0, 90.0), "usual": Usual(100.0, 0.04, 0.02)}, "ok", ""),
        ({"before": Probe(0.0, 60.0), "after": Probe(0.0, 60.0), "usual": Usual(100.0, 0.5, 0.5)}, "noisy", "level"),
        ({"queued": 20_000, "switches": 10, "host": counters.Disturbance(0.0, 0.2, 0)}, "ok", ""),
        ({"queued": 400_000}, "suspect", "run-queue wait"),
        ({"queued": 4_000_000}, "noisy", "run-queue wait"),
        ({"host": counters.Disturbance(0.02, 0.0, 0)}, "noisy", "steal"),
        ({"host": counters.Disturbance(0.0, 0.05, 0)}, "suspect", "cpu pressure"),
        ({"host": counters.Disturbance(0.0, 0.0, 1)}, "noisy", "throttled"),
        ({"host": counters.Disturbance(None, None, None)}, "ok", ""),
        ({"cpu_ns": 25_000_000, "threads": 2}, "ok", ""),
    ],
)
def test_each_detector_raises_its_own_flag(changes, verdict, words):
    found = evidence(**changes)
    assert found.verdict == verdict
    assert bool(found.reasons) == bool(words)
    assert all(words in reason for reason in found.reasons)


def test_every_threshold_names_its_origin():
    assert all(limit.origin for limit in THRESHOLDS.values())


def test_the_usual_rate_needs_a_hundred_probes_and_survives_a_broken_file(tmp_path):
    assert clean.usual(clean.remember("h", [50.0] * 40, tmp_path)) is None
    rates = clean.remember("h", [100.0] * 70, tmp_path)
    assert (len(rates), clean.usual(rates).gflops) == (110, 100.0)
    next(tmp_path.iterdir()).write_text("{broken")
    assert clean.history("h", tmp_path) == []
    assert len(clean.remember("h", [1.0] * 2000, tmp_path)) == clean.KEPT


def test_the_usual_rate_has_the_deviations_of_its_probes_also_where_many_were_disturbed():
    draw = np.random.default_rng(0)
    rates = 100 * (1 + 0.02 * draw.standard_normal(1000))
    rates[:200] *= 0.6  # a neighbour that was there for a while
    found = clean.usual(rates.tolist())
    assert (found.gflops, found.spread) == (pytest.approx(99.5, abs=0.7), pytest.approx(0.027, abs=0.006))
    assert found.drift == pytest.approx(0.02 * 2**0.5, rel=0.1)


def test_a_process_tells_how_long_it_waited_for_a_cpu():
    before = loops.queued_ns()
    if before is None:
        pytest.skip("this kernel does not tell")
    assert loops.queued_ns() >= before >= 0


def test_the_thread_count_is_the_runtimes_own_and_not_an_inter_op_pools():
    assert effective_threads({"inter_op_threads": "1", "threads": "2"}) == "2"
    assert effective_threads({"INFERENCE_NUM_THREADS": "3"}) == "3"
    assert effective_threads({"arena": "true"}) == "not reported"


def test_the_probe_sees_this_cpu():
    assert 0 <= probe.lost_share(spin_ns=5_000_000) <= 1
    found = probe.Canary().reading(3)
    assert found["gflops"] > 0.5
    assert 0 < found["small_ns"] < 10_000_000
    assert 0 < found["loop_ns"] < 10_000_000


def test_the_fingerprint_is_stable_and_hashes_no_state(monkeypatch):
    first = host.fingerprint()
    monkeypatch.setattr(host, "state", lambda: {"load": "99"})
    assert host.fingerprint().host_id == first.host_id
    assert set(host.HASHED) <= set(first.facts)
    assert all(first.facts.values())
    assert all(first.state.values())
    assert codec.to_data(first)["host_id"] == first.host_id


def test_elsewhere_fields_say_that_they_are_not_available(monkeypatch):
    monkeypatch.setattr(host, "read_text", lambda path: None)
    monkeypatch.setattr(cpus, "read_text", lambda path: None)
    host.facts.cache_clear()
    try:
        found = host.facts()
    finally:
        host.facts.cache_clear()
    assert found["cpu_microcode"].startswith("not available: ")
    assert found["cores_logical"].isdigit()


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_cpu_quota_of_both_cgroup_versions(tmp_path, monkeypatch, files, wanted):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpus, "cgroup_path", lambda controller: tmp_path)
    assert cpus.quota() == wanted


def test_threads_get_distinct_physical_cores(monkeypatch):
    monkeypatch.setattr(cpus, "allowed", lambda: tuple(range(8)))
    monkeypatch.setattr(cpus, "siblings", lambda cpu: frozenset({cpu % 4, cpu % 4 + 4}))
    assert cpus.physical_cores() == (0, 1, 2, 3)
    assert cpus.choose(1) == (3,)
    assert cpus.choose(4) == (0, 1, 2, 3)
    assert cpus.choose(5) == (0, 1, 2, 3, 7)
    assert cpus.choose(99) == tuple(range(8))


def test_the_null_target_gives_zeros_for_what_is_declared(tmp_path):
    from types import SimpleNamespace

    from harness.api import Model, NoParams
    from harness_null.target import SPEC

    file = tmp_path / "model.onnx"
    file.write_bytes(b"anything")
    out = tmp_path / "out"
    out.mkdir()
    model = Model("onnx", file, {"x": TensorSpec("float32", (None, 3))}, ("y", "z"))
    artifact = SPEC.lower(model, NoParams(), Options(), SimpleNamespace(out=out))
    assert isinstance(artifact, Artifact)
    assert artifact.path.read_bytes() == b"anything"
    session = SPEC.open(artifact, NoParams(), Options(batch=2), "latency")
    assert session.inputs == model.inputs
    outputs_of_two = session.run({"x": np.ones((2, 3))})
    assert {name: array.shape for name, array in outputs_of_two.items()} == {"y": (2, 1), "z": (2, 1)}
    assert session.run({"x": np.ones((5, 3))})["y"].shape == (5, 1)
    assert not SPEC.ranked


def test_another_machines_clock_is_taken_in_place_of_this_one():
    asked = []

    def clocked(item, runs):
        asked.append((item, runs))
        return 5_000_000

    loop = loops.Loop(lambda item: pytest.fail("this host timed a run"), ["a", "b"], clocked)
    budget = WarmUp(4, 1, 10**9, 3, 1, 10**9)
    warmed = loop.warm(budget)
    assert warmed.inner_loops == loops.DEVICE_SAMPLE_NS // 5_000_000
    asked.clear()
    batch = loop.batch(0, 0)
    assert batch.ns == (5_000_000,) * 3
    assert [runs for _item, runs in asked] == [20, 20, 20]
    assert {item for item, _runs in asked} == {"a", "b"}


def test_what_nothing_watched_is_suspect_and_keeps_the_evidence():
    found = noise.unwatched(QUIET)
    assert (found.verdict, found.canary_before_gflops) == ("suspect", QUIET.canary_before_gflops)
    assert "device" in found.reasons[0]


def test_every_threshold_is_a_signal_of_new_launches_and_of_stored_ones():
    """Whoever re-judges a launch judges by all that it was judged by."""
    around = counters.Disturbance(0.0, 0.0, 0, 0.0, 0.0, 0)
    batch = Batch(0, 0, (1000,) * 10, 10_000, 10_000, 0, 0, 0)
    calm = Probe(0.0, 100.0)
    found = noise.assess([batch], calm, calm, around, threads=1, usual=Usual(100.0, 0.0, 0.0))
    coarse = {"involuntary switches", "cpu pressure"}
    assert set(noise.signals(found, [batch], 1)) == set(THRESHOLDS) - {"run-queue wait"}
    told = dataclasses.replace(found, queued=0.0)
    assert set(noise.signals(told, [batch], 1)) == set(THRESHOLDS) - coarse
    assert noise.due(dataclasses.replace(found, psi_memory=0.5), [batch], 1) == "noisy"
    assert noise.due(dataclasses.replace(found, thermal=1), [batch], 1) == "noisy"
    assert noise.due(found, [batch], 1) == found.verdict == "ok"


def test_every_measured_cpu_is_probed(monkeypatch):
    """A neighbour on the ninth CPU disturbs a model of twelve threads as one on the first does."""
    asked = []

    class Prober:
        def ask(self, _kind, *, cpus):
            asked.extend(cpus)
            return {"hiccup": 0.0, "gflops": 100.0, "library": "", "loop_ns": 1.0, "small_ns": 1.0}

    crew = Crew((), PROFILES["quick"], range(12), 0, alone=True, timeout_s=1.0, memory_limit_bytes=None)
    crew._prober = Prober()
    crew.probe()
    assert asked == list(range(12))
