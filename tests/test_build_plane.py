from __future__ import annotations

import contextlib
import json

import build_support
import numpy as np
import pytest

from harness.build import Built
from harness.types import Failure, Precision


@pytest.fixture
def toy(tmp_path, monkeypatch):
    yield build_support.install(tmp_path, monkeypatch)
    build_support.forget()


def test_a_cell_is_built_from_data_to_artifact(toy):
    built = toy.build("toy-prune:keep=2+toy-int8")["toy-prune:keep=2+toy-int8"]
    assert isinstance(built, Built), built
    assert built.artifact.realised == "int8"
    assert np.load(built.artifact.path).dtype == np.int8
    assert np.count_nonzero(np.load(built.model.path)) == 2
    assert [step.name for step in built.model.lineage] == ["toy-task", "toy-prune", "toy-int8", "toy-export"]
    assert built.model.lineage[0].effect == {"parameters": 4.0}
    assert built.model.names == {"w": "W"}
    assert built.model.flags == ("toy",)
    assert set(built.seconds) == {"data", "fit", "compress", "export", "lower"}
    assert not built.cached


def test_evaluation_is_the_test_split_on_disk(toy):
    evaluation = toy.build("toy-base")["toy-base"].evaluation
    expected = np.random.default_rng(3).normal(size=(20, 4)).astype("float32")
    np.testing.assert_array_equal(np.load(evaluation.folder / "x.npy"), expected)
    assert (evaluation.items, evaluation.labelled) == (20, True)
    assert len(np.load(evaluation.folder / "labels.npy")) == 20


def test_baseline_and_int8_share_one_export(toy):
    results = toy.build("toy-base", "toy-int8")
    assert sorted(toy.ran()) == [
        "export", "fit", "int8", "lower float32 batch=1 threads=1", "lower int8 batch=1 threads=1",
    ]  # fmt: skip
    assert results["toy-base"].model.path == results["toy-int8"].model.path
    assert results["toy-base"].model.precision == Precision()
    assert results["toy-int8"].model.precision.weights == "int8"
    assert [step.name for step in results["toy-int8"].model.lineage] == ["toy-task", "toy-int8", "toy-export"]


def test_a_second_run_builds_nothing_and_starts_no_builder(toy, monkeypatch):
    first = toy.build("toy-base", "toy-prune", "toy-align")
    toy.ran()
    monkeypatch.setattr("harness.build.pool.Builder.start", lambda *args: pytest.fail("a builder was started"))
    second = toy.build("toy-base", "toy-prune", "toy-align")
    assert toy.ran() == []
    assert all(built.cached for built in second.values())
    assert [first[name].artifact for name in first] == [second[name].artifact for name in first]


def test_options_that_lowering_reads_split_artifacts_and_others_do_not(toy):
    toy.build("toy-base", batches=(1, 8), threads=("1", "2"))
    lowered = sorted(line for line in toy.ran() if line.startswith("lower"))
    assert lowered == ["lower float32 batch=1 threads=1", "lower float32 batch=8 threads=1"]


def test_targets_that_agree_in_what_a_method_reads_share_it(toy):
    toy.build("toy-align", targets=("toy-runtime", "toy-other"))
    assert toy.ran().count("align") == 1


def test_targets_that_differ_in_what_a_method_reads_do_not_share_it(toy):
    from dataclasses import replace

    other = replace(build_support.AVAILABLE, capabilities=replace(build_support.CAPABILITIES, channel_multiple=16))
    states = {"toy-runtime": build_support.AVAILABLE, "toy-other": other}
    results = toy.build("toy-align", targets=("toy-runtime", "toy-other"), states=states)
    assert toy.ran().count("align") == 2
    weights = [np.load(built.model.path) for built in results.values()]
    np.testing.assert_allclose(weights[0] / 8, weights[1] / 16)


WRONGS = [
    ("segv", "crashed", "SIGSEGV"),
    ("kill", "crashed", "SIGKILL"),
    ("exit", "crashed", "status 0"),
    ("sys-exit", "failed", "SystemExit: bye"),
    ("raise", "failed", "IndexError: list index out of range"),
    ("type", "failed", "gave int where Model is due"),
    ("format", "failed", "'onnx' model"),
    ("outside", "failed", "outside"),
    ("absent", "failed", "does not exist"),
    ("unsupported", "not-applicable", "the toy cannot"),
    ("missing", "unavailable", "pip install toylib"),
    ("memory", "oom", "too big"),
    ("test", "failed", "test split"),
    ("hardware", "failed", "'isa'"),
]


def test_what_a_step_does_wrong_costs_its_own_cell(toy):
    results = toy.build("toy-base", *(f"toy-break:how={how}" for how, _status, _text in WRONGS))
    for how, status, text in WRONGS:
        failure = results[f"toy-break:how={how}"]
        assert isinstance(failure, Failure), how
        assert (failure.status, failure.stage, failure.blame) == (status, "compress", "toy (toy-plugin)"), how
        assert text in failure.reason, how
    assert isinstance(results["toy-base"], Built)
    logs = list(toy.cache.logs.glob("*compress-toy-break*.log"))
    assert len(logs) == 3  # one for each error that was not raised on purpose
    assert all("in wrong" in log.read_text() for log in logs)


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("open", "not-applicable", "toy-runtime built the model and could not run it: the toy has no Dot"),
        ("run", "failed", "could not run it and raised \"ValueError: toy kernel: the operator 'dot' wants 5 columns\""),
        ("open-segv", "crashed", "toy-runtime could not build the model, its process was ended by SIGSEGV"),
    ],
)
def test_an_artifact_that_does_not_run_was_not_built(toy, how, status, words):
    target = f"toy-runtime:how={how}"
    results = toy.build("toy-base", "toy-int8", targets=(target, "toy-runtime"))
    failure = results["toy-base", target]
    assert (failure.status, failure.stage, failure.blame) == (status, "lower", "toy (toy-plugin)")
    assert words in failure.reason
    assert isinstance(results["toy-base", "toy-runtime"], Built)
    assert isinstance(results["toy-int8", "toy-runtime"], Built)


def test_an_artifact_runs_one_item_when_it_is_built_and_not_again(toy):
    toy.build("toy-base")
    assert toy.ran(sessions=True) == ["run 1"]
    toy.build("toy-base")
    assert not toy.ran(sessions=True)


def test_failures_are_not_cached(toy):
    toy.build("toy-break:how=raise")
    toy.ran()
    toy.build("toy-break:how=raise")
    assert "break raise" in toy.ran()


def test_a_step_that_hangs_is_killed(toy):
    results = toy.build("toy-break:how=hang", "toy-base", timeout_s=3.0)
    assert results["toy-break:how=hang"].status == "timeout"
    assert "no progress for 3 s" in results["toy-break:how=hang"].reason
    assert isinstance(results["toy-base"], Built)


def test_progress_keeps_a_slow_step_alive(toy):
    built = toy.build("toy-base", workloads=("toy-task:seconds=4",), timeout_s=2.0)["toy-base"]
    assert isinstance(built, Built), built


def test_what_a_plugin_prints_does_not_meet_the_protocol(toy):
    assert isinstance(toy.build("toy-break")["toy-break"], Built)


@pytest.mark.parametrize(
    ("fault", "text"), [("overlap", "'train' and 'selection' share"), ("dtype", "float64, declared is float32")]
)
def test_bad_data_take_out_every_cell_of_the_workload(toy, fault, text):
    results = toy.build("toy-base", "toy-int8", workloads=(f"toy-task:fault={fault}",))
    assert {(result.status, result.stage) for result in results.values()} == {("failed", "fit")}
    assert all(text in result.reason for result in results.values())


def test_a_missing_calibration_split_takes_out_only_who_needs_it(toy):
    results = toy.build("toy-base", "toy-int8", workloads=("toy-task:fault=no-calibration",))
    assert isinstance(results["toy-base"], Built)
    assert (results["toy-int8"].status, results["toy-int8"].stage) == ("not-applicable", "lower")


@pytest.mark.parametrize(
    ("fault", "needs", "words"),
    [
        ("no-calibration", "calibration", "this task has no calibration data"),
        ("empty-calibration", "calibration", "the calibration split of workload 'toy-task' is empty"),
        ("empty-train", "training", "the train split of workload 'toy-task' is empty"),
        ("unlabelled-train", "training", "needs labels, and the train split of workload 'toy-task' has none"),
        ("empty-selection", "selection", "the selection split of workload 'toy-task' is empty"),
        ("unlabelled-selection", "selection", "needs labels, and the selection split of workload 'toy-task' has none"),
    ],
)
def test_nothing_is_trained_for_a_method_whose_items_are_not_there(toy, fault, needs, words):
    (failure,) = toy.build(f"toy-prune+toy-ranges:needs={needs}", workloads=(f"toy-task:fault={fault}",)).values()
    assert (failure.status, failure.stage) == ("not-applicable", "compress")
    assert failure.blame.startswith("toy (")
    assert "method 'toy-ranges' needs" in failure.reason
    assert words in failure.reason
    assert toy.ran() == []


def test_what_others_share_with_a_refused_cell_is_built_for_them(toy):
    refused = "toy-prune+toy-ranges+toy-int8"
    results = toy.build("toy-prune", refused, workloads=("toy-task:fault=empty-calibration",))
    assert isinstance(results["toy-prune"], Built)
    assert "calibration split" in results[refused].reason
    assert sorted(toy.ran()) == ["export", "fit", "lower float32 batch=1 threads=1", "prune"]
    counts = [(event.done, event.total) for event in toy.events]
    assert counts[-1][0] == counts[-1][1]


def test_edited_source_builds_anew(toy):
    toy.build("toy-base")
    toy.ran()
    toy.source.write_text(toy.source.read_text() + "\n# edited\n")
    toy.build("toy-base")
    assert "fit" in toy.ran()


def test_events_count_every_step_and_end_at_the_total(toy):
    toy.build("toy-base", "toy-int8")
    last = toy.events[-1]
    assert (last.done, last.total) == (8, 8)
    assert {event.kind for event in toy.events} >= {"started", "built", "cached"}
    assert toy.events[-1].seconds_left == 0.0


def test_each_step_runs_inside_a_slot(toy):
    held = []

    @contextlib.contextmanager
    def slot():
        held.append(1)
        yield
        held.append(-1)

    toy.build("toy-base", slot=slot)
    assert held.count(1) >= 4
    assert sum(held) == 0


def test_a_slot_that_fails_ends_the_build(toy):
    @contextlib.contextmanager
    def slot():
        raise OSError("no lock file")
        yield

    with pytest.raises(OSError, match="no lock file"):
        toy.build("toy-base", slot=slot)


def test_an_entry_says_what_its_key_was_made_from(toy):
    built = toy.build("toy-base")["toy-base"]
    raw = json.loads((built.artifact.path.parent / "result.json").read_text())
    assert raw["inputs"]["stage"] == "lower"
    assert raw["inputs"]["packages"] == {"numpy": np.__version__}
    assert raw["value"]["path"] == "model.toyart"


def test_another_interpreter_lowers_its_target(toy):
    import sys

    built = toy.build("toy-base", python={"toy-runtime": sys.executable})["toy-base"]
    assert isinstance(built, Built), built


def test_a_builder_that_makes_room_for_another_interpreter_leaves_no_ear_behind(toy):
    """The new builder's pipe has the old one's descriptor; it was never heard, and the run stood still."""
    import sys

    built = toy.build("toy-base", workers=1, timeout_s=20, python={"toy-runtime": sys.executable})["toy-base"]
    assert isinstance(built, Built), built


def test_an_interpreter_that_cannot_be_run_is_a_reason(toy):
    failure = toy.build("toy-base", python={"toy-runtime": "/nonexistent/python"})["toy-base"]
    assert (failure.status, failure.stage) == ("unavailable", "lower")
    assert "/nonexistent/python" in failure.reason
