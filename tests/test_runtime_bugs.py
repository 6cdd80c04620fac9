"""The corpus of public bugs: what is offered, how an outcome is told, and the page of the installed versions."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from plugin_factory import make_plugin

from harness.cli.main import call, cli
from harness.errors import PlanError
from harness.plugins import load_registry
from harness.runtime_bugs import BugCase, differs, load_case
from harness.selftest import run_runtimes
from harness.testing.run import check_offer

ROOT = Path(__file__).parents[1]
STORED = json.loads((ROOT / "docs" / "assets" / "runtime-bugs.json").read_text())
TOY = """
    import os, signal, time
    from pathlib import Path
    import numpy as np
    from harness.api import BugCase, RuntimeBug, Unsupported, hookimpl

    def case(how):
        def build(folder):
            if how == "unbuilt":
                raise OSError("no ink")
            path = folder / "model.txt"
            path.write_text("1")
            return path

        def answer(path, inputs):
            if how == "refused":
                raise RuntimeError("Exception from /src/core.cc:12: no kernel for Sum")
            if how == "quits":
                raise SystemExit(3)
            if how == "crashed":
                os.kill(os.getpid(), signal.SIGSEGV)
            if how == "no-gpu":
                raise Unsupported("there is no GPU here")
            return {"y": inputs["x"] + (2 if how == "wrong" else int(path.read_text()))}

        x = np.arange(3.0)
        return BugCase({"x": x}, {"y": x + 1}, build, answer)

    NAMES = ("right", "wrong", "refused", "quits", "crashed", "unbuilt", "no-gpu", "gone")
    for name in NAMES:
        globals()["case_" + name.replace("-", "_")] = lambda name=name: case(name)

    @hookimpl
    def harness_runtime_bugs():
        for name in NAMES:
            yield RuntimeBug(
                name=f"toy-{name}", summary="a sum is off by one", url="https://example.org/issues/1",
                runtime="no-such-runtime" if name == "gone" else "numpy", hit="all", symptom="wrong",
                case="plug_toybugs:case_" + name.replace("-", "_"),
            )
        yield RuntimeBug(
            name="toy-nowhere", summary="no such function", url="https://example.org/issues/2", runtime="numpy",
            hit="all", symptom="wrong", case="plug_toybugs:nowhere",
        )
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(make_plugin(tmp_path, "toybugs", TOY)))
    yield load_registry(only={"toybugs"})
    sys.modules.pop("plug_toybugs", None)


def test_every_outcome_is_told_apart_and_costs_its_own_row(toy: Any) -> None:
    report = run_runtimes(toy)
    rows = {row.bug.removeprefix("toy-"): (row.outcome, row.reason) for row in report.rows}
    assert rows["right"] == ("right", "")
    assert rows["wrong"] == ("wrong", "3 of 3 elements of output 'y' are wrong, the first at [0]: 2 instead of 1")
    assert rows["refused"][0] == "refused"
    assert "no kernel for Sum" in rows["refused"][1]
    assert "/src" not in rows["refused"][1]
    assert rows["quits"][0] == "refused"
    assert rows["crashed"] == ("crashed", "was ended by SIGSEGV")
    assert rows["unbuilt"] == ("not-evaluable", "OSError: no ink")
    assert rows["nowhere"][0] == "not-evaluable"
    assert rows["no-gpu"] == ("not-evaluable", "there is no GPU here")
    assert rows["gone"] == ("not-installed", "")
    assert {row.version for row in report.rows if row.outcome == "crashed"} == {np.__version__}


def test_the_command_prints_a_table_and_json_and_names_what_it_does_not_know(toy: Any, capsys: Any) -> None:
    assert call(["selftest", "--runtimes", "--only", "toy-wrong", "--only", "toy-right"]) == 0
    told = capsys.readouterr()
    assert "off by one; 3 of 3 elements" in " ".join(told.out.split())
    assert "1 right, 1 wrong" in told.err
    assert call(["selftest", "--runtimes", "--only", "toy-unbuilt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["outcome"] == "not-evaluable"
    with pytest.raises(PlanError, match="no bug and no runtime is called 'toy-wrng'") as raised:
        run_runtimes(toy, only=("toy-wrng",))
    assert "toy-wrong" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--runtimes", "--full"), "it takes no --full"),
        (("--python", "onnxruntime=python"), "--runtimes is not given"),
        (("--runtimes", "--python", "onnxruntime=/no/python"), "the interpreter of 'onnxruntime' does not exist"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], told: str, capsys: Any) -> None:
    assert call(["selftest", *options]) == 2
    assert told in capsys.readouterr().err


def test_the_kit_checks_a_bug(toy: Any) -> None:
    def states(name: str) -> dict[str, str]:
        return {result.check: result.state for result in check_offer(toy, "bug", name)}

    assert states("toy-gone") == dict.fromkeys(("naming", "docs", "declarations", "runs", "independent"), "passed")
    assert states("toy-right")["independent"] == "failed"  # numpy is its runtime, and makes its arrays
    assert states("toy-nowhere")["runs"] == "failed"


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ([1.0, 2.0], ""),
        ([1.0, 2.0 + 1e-9], ""),
        ([1.0, 3.0], "1 of 2 elements of output 'y' are wrong, the first at [1]: 3 instead of 2"),
        ([[1.0, 2.0]], "output 'y' has shape [1, 2] instead of [2]"),
        (None, "output 'y' is missing"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(got: Any, told: str) -> None:
    case = BugCase({}, {"y": np.array([1.0, 2.0])}, lambda _folder: None, lambda _built, _inputs: {})
    assert differs({} if got is None else {"y": np.array(got)}, case) == told


def test_integers_are_compared_exactly_and_nan_with_nan() -> None:
    def case(right: Any) -> BugCase:
        return BugCase({}, {"y": np.array(right)}, lambda _folder: None, lambda _built, _inputs: {})

    assert differs({"y": np.array([2**62 + 1])}, case([2**62])) != ""
    assert differs({"y": np.array([np.nan])}, case([np.nan])) == ""
    assert differs({"y": np.array(False)}, case(True)).startswith("1 of 1 elements")


# The corpus itself


@pytest.fixture(scope="module")
def bugs() -> dict[str, Any]:
    return {name: offer.spec for name, offer in load_registry(only={"runtime-bugs"}).bugs.items()}


def test_the_corpus_is_large_and_every_bug_has_its_report(bugs: dict[str, Any]) -> None:
    assert len(bugs) >= 30
    assert {bug.runtime for bug in bugs.values()} >= {
        "onnxruntime", "openvino", "nncf", "ai-edge-litert", "torch", "tensorrt-cu13",
    }  # fmt: skip
    for bug in bugs.values():
        number = bug.name.rpartition("-")[2]
        assert re.fullmatch(rf"https://github\.com/[\w-]+/[\w-]+/(issues|pull)/{number}", bug.url), bug.url
    assert len({bug.url for bug in bugs.values()}) == len(bugs)


def test_the_list_of_plugins_counts_so_many(bugs: dict[str, Any], capsys: Any) -> None:
    assert call(["plugins"]) == 0
    assert f"{len(bugs)} bugs" in " ".join(capsys.readouterr().out.split())


def test_every_right_answer_is_known_without_a_runtime(bugs: dict[str, Any]) -> None:
    runtimes = ("ai_edge_litert", "litert_torch", "nncf", "onnx", "onnxruntime", "openvino", "tensorrt", "torch")
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in runtimes}
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    sys.modules.update(dict.fromkeys(runtimes))  # type: ignore[arg-type]  importing one of them raises
    try:
        for bug in bugs.values():
            case = load_case(bug)
            assert case.right, bug.name
            assert differs(case.right, case) == "", bug.name
            assert differs({name: np.zeros((9, 9, 9)) for name in case.right}, case) != "", bug.name
    finally:
        for name in runtimes:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def test_every_graph_is_valid_and_right_by_the_evaluator_of_onnx(bugs: dict[str, Any], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    unlike, agreed = {"openvino-38158"}, 0  # it truncates what it casts to int4, where ONNX's own text says to round
    for name, bug in bugs.items():
        (folder := tmp_path / name).mkdir()
        case = load_case(bug)
        path = case.build(folder)
        if not isinstance(path, Path) or path.suffix != ".onnx":
            continue
        onnx.checker.check_model(str(path), full_check=True)
        outputs = [output.name for output in onnx.load(str(path)).graph.output]
        if name in unlike or not set(case.right) <= set(outputs):  # the tool's answer is no output of the graph
            continue
        try:
            answered = ReferenceEvaluator(str(path)).run(None, dict(case.inputs))
        except (NotImplementedError, RuntimeError):  # it has no such operator, or none of that opset
            continue
        assert differs(dict(zip(outputs, answered, strict=True)), case) == "", name
        agreed += 1
    assert agreed >= 30


def test_the_page_holds_the_whole_corpus_at_the_versions_that_are_pinned(bugs: dict[str, Any]) -> None:
    rows = {row["bug"]: row for row in STORED["rows"]}
    assert set(rows) == set(bugs), "harness selftest --runtimes --json > docs/assets/runtime-bugs.json"
    for name, bug in bugs.items():
        told = {key: rows[name][key] for key in ("summary", "url", "runtime", "hit", "symptom")}
        assert told == {key: getattr(bug, key) for key in told}
    pinned = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for row in rows.values():
        if row["version"] and row["runtime"] in pinned:
            assert row["version"].partition("+")[0] == pinned[row["runtime"]].partition("+")[0], row["bug"]
    text = (ROOT / "docs" / "runtime-bugs.md").read_text()
    assert all(f"[{name}]({bug.url})" in text for name, bug in bugs.items())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_whole_corpus_runs_in_three_minutes_and_as_the_page_says() -> None:
    done = CliRunner().invoke(cli, ["selftest", "--runtimes", "--json"])
    found = json.loads(done.stdout)
    assert found["seconds"] < 180
    stored = {(row["bug"], row["version"]): row["outcome"] for row in STORED["rows"]}
    assert [row for row in found["rows"] if row["outcome"] == "not-evaluable"] == []
    if found["cpu"] == STORED["cpu"]:  # some bugs show on some CPUs alone
        known = [row for row in found["rows"] if (row["bug"], row["version"]) in stored]
        assert known
        assert {row["bug"]: row["outcome"] for row in known} == {
            row["bug"]: stored[row["bug"], row["version"]] for row in known
        }
