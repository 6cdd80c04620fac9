"""The search: what is varied, the front, resuming, and that the test split is never touched."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fakes
import pytest
import way
from click.testing import CliRunner

from harness.cli.main import call, cli
from harness.config import read_config
from harness.errors import HarnessError, PlanError
from harness.grammar import format_pipeline, parse_pipeline
from harness.tune import Trial, space
from harness.tune.front import front, spread
from harness.tune.search import search
from harness.tune.values import Axis

UP = {"quality": True, "size": False}


def axes(pipeline: str, *vary: str) -> tuple[Axis, ...]:
    return space.axes(vary, parse_pipeline(pipeline), fakes.registry())


def test_a_given_range_is_an_axis_with_the_methods_own_default() -> None:
    (axis,) = axes("channel-pruning+int8", "ratio=0.2..0.7")
    assert (axis.name, axis.kind, axis.low, axis.high, axis.default) == (
        "channel-pruning.ratio",
        "float",
        0.2,
        0.7,
        0.5,
    )


def test_whole_numbers_lists_and_logarithms() -> None:
    whole, listed = axes("channel-pruning+int8", "epochs=1..9:log", "ratio=0.25,0.5")
    assert (whole.kind, whole.low, whole.high, whole.log) == ("int", 1, 9, True)
    assert (listed.kind, listed.choices) == ("choice", (0.25, 0.5))


def test_without_vary_every_range_with_both_ends_is_an_axis() -> None:
    (axis,) = axes("channel-pruning")
    assert axis.name == "channel-pruning.ratio"  # epochs have no upper end
    assert 0 < axis.low < 0.1
    assert 0.9 < axis.high < 1


@pytest.mark.parametrize(
    ("pipeline", "vary", "words"),
    [
        ("channel-pruning", "ratio", "name=low..high"),
        ("channel-pruning", "ratio=0.7..0.2", "empty"),
        ("channel-pruning", "ratio=0.2..1.5", "0 < x < 1"),
        ("channel-pruning", "ratios=0.2..0.5", "no step of the pipeline"),
        ("channel-pruning:ratio=0.5", "ratio=0.2..0.5", "both fixed"),
        ("channel-pruning+magnitude-pruning", "ratio=0.2..0.5", "several steps"),
        ("channel-pruning", "epochs=0..5:log", "above 0"),
        ("channel-pruning", "ratio=a..b", "takes float"),
    ],
)
def test_bad_ranges_are_refused_in_a_sentence(pipeline: str, vary: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        axes(pipeline, vary)


def test_a_name_with_its_step_is_not_ambiguous() -> None:
    (axis,) = axes("channel-pruning+magnitude-pruning", "magnitude-pruning.ratio=0.2..0.5")
    steps = parse_pipeline("channel-pruning+magnitude-pruning")
    filled = space.pipeline_at(steps, (axis,), {axis.name: 0.25})
    assert format_pipeline(filled) == "channel-pruning+magnitude-pruning:ratio=0.25"


def trial(number: int, quality: float, size: float, status: Any = "ok") -> Trial:
    values = {"quality": quality, "size": size} if status == "ok" else {}
    return Trial(1, number, f"p{number}", {"x": number}, status, values)


def test_the_front_of_hand_made_trials() -> None:
    trials = [trial(0, 0.9, 100), trial(1, 0.8, 50), trial(2, 0.8, 60), trial(3, 0.95, 120), trial(4, 0, 0, "failed")]
    assert {item.number for item in front(trials, UP)} == {0, 1, 3}


def test_the_front_is_optunas() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    trials = [trial(number, (number * 37 % 19) / 19, (number * 53 % 23) / 23) for number in range(40)]
    for item in trials:
        study.add_trial(optuna.trial.create_trial(values=[item.values["quality"], item.values["size"]]))
    assert {item.number for item in front(trials, UP)} == {item.number for item in study.best_trials}


def test_the_winners_keep_the_ends_and_lie_apart() -> None:
    line = [trial(number, at, 100 * at) for number, at in enumerate([0.0, 0.01, 0.02, 0.5, 1.0])]
    assert {item.number for item in spread(line, UP, 3)} == {0, 3, 4}


AXES = (Axis("a.n", 0, "n", "int", 0, 40, default=7), Axis("a.kind", 0, "kind", "choice", choices=("x", "y")))


def run_search(done: list[Trial], total: int, fail: int = -1) -> list[Mapping[str, Any]]:
    asked: list[Mapping[str, Any]] = []

    def evaluate(number: int, point: Mapping[str, Any]) -> Trial:
        asked.append(point)
        assert number == len(done)
        bad = number == fail
        values = {} if bad else {"quality": -abs(point["a.n"] - 20), "size": float(point["a.n"])}
        done.append(Trial(1, number, str(point), point, "failed" if bad else "ok", values))
        return done[-1]

    search(AXES, UP, list(done), evaluate, trials=total, seed=0)
    return asked


def test_a_resumed_search_repeats_no_finished_trial_and_goes_on() -> None:
    pytest.importorskip("optuna")
    done: list[Trial] = []
    first = run_search(done, 6, fail=2)
    again = run_search(done, 15)
    assert (len(first), len(again)) == (6, 9)
    every = [tuple(sorted(point.items())) for point in (*first, *again)]
    assert len(set(every)) == 15
    assert run_search(done, 15) == []


def test_the_first_trial_is_what_the_methods_author_chose() -> None:
    pytest.importorskip("optuna")
    assert run_search([], 1)[0]["a.n"] == 7


def test_a_small_space_ends_the_search_early() -> None:
    pytest.importorskip("optuna")
    done: list[Trial] = []
    axis = (Axis("a.n", 0, "n", "int", 1, 3),)

    def evaluate(number: int, point: Mapping[str, Any]) -> Trial:
        done.append(Trial(1, number, str(point), point, "ok", {"quality": 1.0, "size": 1.0}))
        return done[-1]

    search(axis, UP, [], evaluate, trials=50, seed=0)
    assert sorted(item.point["a.n"] for item in done) == [1, 2, 3]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["int8", "--target", "onnxruntime", "--objectives", "speed"], "no objective 'speed'"),
        (["int8", "--target", "onnxruntime", "--objectives", "speed", "--objectives", "size"], "no objective 'speed'"),
        (["int8", "--target", "nowhere"], "nowhere"),
        (["int8:nothing=1", "--target", "onnxruntime"], "nothing"),
        (["baseline", "--target", "onnxruntime"], "nothing to search"),
        (["int8", "--target", "null"], "runs no model"),
        (["channel-pruning:ratio=0.1,0.2", "--target", "onnxruntime"], "sweeps"),
        (["channel-pruning", "--target", "onnxruntime", "--vary", "ratio=0.9..0.1"], "empty"),
        (["channel-pruning", "--target", "onnxruntime", "--workload", "no-such"], "no-such"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(args: list[str], words: str, capfd: pytest.CaptureFixture) -> None:
    assert call(["tune", *args]) == 2
    said = capfd.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from harness.tune.search import optuna_module

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(HarnessError, match=r"compression-harness\[tune\]") as caught:
        optuna_module()
    assert caught.value.exit_code == 5


def test_help_names_the_options() -> None:
    said = CliRunner().invoke(cli, ["tune", "--help"]).output
    assert all(option in said for option in ("--vary", "--trials", "--objectives", "--search-only", "--json"))


# -- the whole way


def tune(here: way.Way, *args: str) -> list[str]:
    common = ("--target", "way-a", "--workload", "way-task", "--out", str(here.out))
    return here.command("tune", "way-keep", *common, *args)


def run(here: way.Way, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        tune(here, *args), env=here.env, cwd=here.folder, capture_output=True, text=True, timeout=200, check=False
    )


def stored(here: way.Way) -> dict[str, dict[str, Any]]:
    paths = here.out.glob("*/tune-*/trials/*.json.gz")
    return {path.name: json.loads(gzip.decompress(path.read_bytes())) for path in sorted(paths)}


def test_a_search_is_killed_goes_on_and_never_sees_the_test_split(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    here = way.install(tmp_path)
    search = ("--trials", "4", "--search-only", "--json")
    with subprocess.Popen(
        tune(here, *search), env=here.env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as killed:
        for _ in range(600):
            if len(stored_names(here)) >= 1 or killed.poll() is not None:
                break
            time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
    before = stored(here)
    assert 1 <= len(before) < 4

    folders = list((tmp_path / "cache").glob("**/test/labels.npy"))
    assert folders, "the workload's data are in the cache"
    for labels in folders:  # whoever reads the test split from here on fails
        shutil.rmtree(labels.parent)
    done = run(here, *search)
    assert done.returncode == 0, done.stderr
    after = stored(here)
    assert len(after) == 4
    assert all(after[name] == before[name] for name in before)
    points = [json.dumps(item["point"]) for item in after.values()]
    assert len(set(points)) == 4
    assert {item["split"] for item in after.values()} == {"selection"}
    assert all(item["sets"] for item in after.values() if item["status"] == "ok")
    told = json.loads(done.stdout)
    assert len(told["trials"]) == 4
    assert told["run"] is None


def stored_names(here: way.Way) -> list[Path]:
    return list(here.out.glob("*/tune-*/trials/*.json.gz"))


def test_the_winners_are_measured_again_and_failures_cost_their_trial(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    here = way.install(tmp_path)
    done = run(
        here, "--vary", "keep=3,8", "--trials", "2", "--objectives", "quality", "--objectives", "latency", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    by_keep = {item["point"]["way-keep.keep"]: item for item in told["trials"]}
    assert "three cannot be kept" in by_keep[3]["reason"]
    assert by_keep[8]["quality"] > 0.8
    best = next(item for item in told["trials"] if item["point"] == {"way-keep.keep": 8})["pipeline"]
    assert best in told["winners"]
    spec = read_config(Path(told["spec"]))
    assert list(spec.methods) == told["winners"]
    records = here.records()
    assert Path(told["run"]) == here.runs()[-1]
    for pipeline, target in itertools.product(told["winners"], ["way-a"]):
        assert records[pipeline, target]["status"] == "ok"
        assert records[pipeline, target]["latency"]["launches"] == 6
