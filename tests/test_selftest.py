"""The self-test: its simulated lines pass, a miss that nothing flagged fails, and a full one resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import fakes
import numpy as np
import pytest
from launches import QUIET, launch_set

from harness import codec
from harness.cli.main import call
from harness.errors import MissingDependency
from harness.leaderboard import table
from harness.leaderboard.vouched import sentences
from harness.measure import Member
from harness.measure.loadgen import read_summary
from harness.plugins import load_registry
from harness.report import report
from harness.selftest import GROUPS, again, floor, recorded, run_selftest, simulated, vendor
from harness.selftest import run as runner
from harness.selftest.known import flips, least_by_chance, most_by_chance
from harness.selftest.lab import Lab, judge
from harness.selftest.values import Line, Report
from harness.specs import VendorTool
from harness.store import load_run
from harness.types import Artifact, Options, Step

NOISY = dataclasses.replace(QUIET, verdict="noisy")
SETS = [launch_set(index, {"a": [[100] * 9]}) for index in range(5)]
DISTURBED = [launch_set(index, {"a": [[100] * 9]}, noise=NOISY) for index in range(5)]


@pytest.mark.parametrize(
    "make",
    [
        simulated.known_truth,
        simulated.same_things,
        simulated.power,
        simulated.evidence,
        simulated.determinism,
        floor.planted,
    ],
)
def test_simulated_lines_pass(make):
    lines = list(make())
    assert lines
    assert [line.reason for line in lines if line.verdict != "pass"] == []


def test_statistics_that_claim_too_much_fail_their_line(monkeypatch):
    """A verdict from separate medians instead of paired ones is what A/A is there to catch."""
    from harness.types import Interval

    def eager(sets, cell, anchor):
        point = sum(launch.batches[0].ns[0] for item in sets for launch in item.launches if launch.cell_id == cell)
        other = sum(launch.batches[0].ns[0] for item in sets for launch in item.launches if launch.cell_id == anchor)
        return Interval(point / other, point / other - 0.001, point / other + 0.001), None

    monkeypatch.setattr(simulated, "paired_ratio", eager)
    assert next(iter(simulated.same_things())).verdict == "fail"


def test_a_miss_is_a_failure_unless_the_harness_itself_saw_the_disturbance():
    assert judge(True, "x", disturbed="loaded", sets=DISTURBED) == ("pass", "x")
    assert judge(False, "x", disturbed="", sets=SETS)[0] == "fail"
    assert judge(False, "x", disturbed="", sets=DISTURBED)[0] == "not-evaluable"
    assert judge(False, "x", disturbed="loaded", sets=SETS)[0] == "not-evaluable"


def test_allowances_are_the_binomial_ones():
    assert (most_by_chance(200), most_by_chance(40)) == (15, 4)
    assert least_by_chance(50, 0.95) == 45


def test_planted_flips_are_found_exactly(tmp_path):
    lab = Lab(load_registry(only={"null"}), tmp_path, full=False, calm_s=0, note=print)
    (line,) = flips(lab)
    assert (line.verdict, line.figures["flips"]) == ("pass", 7)


def test_a_thousandfold_claim_is_rejected_and_the_same_product_told_honestly_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(floor, "SIZE", 256)
    monkeypatch.setattr(floor, "model_member", lambda lab, target: "not tried here")
    lab = Lab(load_registry(only={"null", "onnxruntime"}), tmp_path, full=False, calm_s=0, note=print)
    monkeypatch.setattr(Lab, "trials", lambda self, plain, full: 1)
    product, cheat, *networks = floor.physical_floor(lab)
    if product.figures:  # where there are kernels for this CPU
        assert 0 < product.figures["percent_of_roofline"] < 120
        assert cheat.verdict == "pass"
    assert [(line.name, line.verdict) for line in networks] == [
        ("physical floor: a network on onnxruntime", "not-evaluable")
    ]


def test_known_work_is_calibrated_once_and_reproduced_against_the_last_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Lab, "trials", lambda self, plain, full: 6)
    monkeypatch.setattr(Lab, "calm", lambda self: "")
    slower = {"factor": 1.0}

    def sets(self, group, members, count, **_more):
        ns = round(1_000_000 * slower["factor"])
        times = {member.cell_id: [[ns + index] * 9] for index, member in enumerate(members)}
        return [launch_set(number, times) for number in range(count)]

    monkeypatch.setattr(Lab, "sets", sets)
    lab = Lab(load_registry(only={"null"}), tmp_path, full=False, calm_s=0, note=print)
    assert [line.verdict for line in again.known_work(lab)] == ["pass"] * 3
    assert [line.verdict for line in again.known_work(lab)] == ["pass"] * 3
    slower["factor"] = 1.2  # a slower clock that no launch flags is a failure, and equal work stays equal
    assert [line.verdict for line in again.known_work(lab)] == ["fail", "pass", "fail"]


def test_a_full_self_test_keeps_what_was_decided_and_tries_again_what_was_not(tmp_path, monkeypatch):
    asked = []

    def sure(_lab):
        asked.append("sure")
        yield Line("sure", "live", "pass", "seen")

    def later(_lab):
        asked.append("later")
        yield Line("later", "live", "pass" if asked.count("later") > 1 else "not-evaluable", "loaded")

    monkeypatch.setattr(runner, "GROUPS", {"sure": sure, "later": later})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    lines = []

    def once_more(**changes):
        lines.clear()
        return run_selftest(
            load_registry(only={"null"}), out=tmp_path, full=True, note=print, on_line=lines.append, **changes
        )

    once_more()
    assert [line.verdict for line in lines] == ["pass", "not-evaluable"]
    report, path = once_more()
    assert [line.verdict for line in lines] == ["pass", "pass"]
    assert asked == ["sure", "later", "later"]
    assert json.loads(path.read_text())["lines"][0]["name"] == "sure"
    assert report.failed == ()
    once_more(fresh=True)
    assert asked.count("sure") == 2


def test_the_command_line_names_the_groups_and_writes_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert call(["selftest", "--only", "simulated-determinism", "--out", str(tmp_path)]) == 0
    assert "pass  simulated determinism" in capsys.readouterr().out
    assert list(tmp_path.glob("*/selftest.json"))
    assert call(["selftest", "--only", "nothing", "--out", str(tmp_path)]) == 2
    assert "vendor" in GROUPS


def test_the_tool_of_any_vendor_is_asked_and_what_it_lacks_is_told(tmp_path, monkeypatch):
    """The core knows no runtime: a target of somebody else brings its vendor's tool with it."""
    asked = []

    def median_ns(run):
        asked.append(run)
        if len(asked) > 1:
            raise MissingDependency("their-bench is not installed")
        return 2.5e6

    tool = VendorTool(name="their-bench", median_ns=median_ns)
    registry = fakes.registry(
        targets=(
            fakes.target("theirs", "onnx", vendor_tools=(tool,)),
            fakes.target("other", "onnx"),
            fakes.target("null", "onnx", ranked=False),
        )
    )
    lab = Lab(registry, tmp_path, full=False, calm_s=0.0, note=lambda _text: None)
    named = []
    monkeypatch.setattr(vendor, "_line", lambda _lab, name, target, _theirs, **_more: named.append((name, target)))
    list(vendor.agreement(lab))
    assert named == [
        ("agreement with their-bench", "theirs"),
        ("agreement with LoadGen on other", "other"),
        ("agreement with LoadGen on theirs", "theirs"),
    ]
    np.save(tmp_path / "x.npy", np.zeros((8, 4), np.float32))
    artifact = Artifact(tmp_path / "m", "onnx", "", "float32", "", 1, 1)
    member = Member("c", "p", Step("theirs"), {}, artifact, Options(batch=16), tmp_path)
    assert vendor.vendors_ns(tool, 3.0, member) == 2.5e6
    assert (asked[0].shapes, asked[0].seconds) == ({"x": (16, 4)}, 3.0)
    assert asked[0].environment["OMP_NUM_THREADS"] == "1"
    assert vendor.vendors_ns(tool, 3.0, member) == "their-bench is not installed"


def test_loadgens_summary_is_read():
    text = "Result is : VALID\n50.00 percentile latency (ns)   : 5199434\nQPS w/o loadgen overhead        : 138.88\n"
    found = read_summary(text)
    assert found["valid"]
    assert found["numbers"]["50.00 percentile latency (ns)"] == 5199434
    assert found["numbers"]["QPS w/o loadgen overhead"] == 138.88


@pytest.mark.parametrize("make", [recorded.same_things, recorded.power, recorded.detectors, recorded.determinism])
def test_recorded_lines_pass(make):
    lines = list(make())
    assert lines
    assert {line.kind for line in lines} == {"recorded"}
    assert [line.reason for line in lines if line.verdict != "pass"] == []


def test_recorded_samples_are_whole():
    found = recorded.read()
    assert len(found.series) * len(found.series[0][0].members) // 2 == 200
    samples = [ns for launch in found.series[0][0].launches for batch in launch.batches for ns in batch.ns]
    assert min(samples) >= 1_000_000
    assert {what for what, _set in found.disturbed} == {"", "stressed", "stopped", "throttled"}


def test_a_detector_that_sleeps_fails_its_recorded_line(monkeypatch):
    monkeypatch.setattr(recorded, "_named", lambda launch: {"cpu/wall", "hiccup"})
    assert [line.verdict for line in recorded.detectors()] == ["pass", "fail"]


def test_the_report_stands_beside_the_board_of_its_host(tmp_path):
    folder = tmp_path / "host" / "run"
    reference = next((Path(__file__).parents[1] / "results/reference").glob("*/*/run.json")).parent
    shutil.copytree(reference, folder)
    run = load_run(folder)
    lines = (Line("known latency", "live", "pass", "5 ms"), Line("A/A", "recorded", "fail", "<b>40 of 200</b>"))
    made = Report(1, "0", run.info.host_id, False, "2026-01-01T00:00:00", "2026-01-01T00:01:00", lines)
    codec.write_whole(folder.parent / "selftest.json", codec.dumps(made))
    (said,) = sentences([run])
    assert "1 pass, 1 fail" in said
    assert "A/A; figures of this host are not to be published" in said
    assert said in table(run).attrs["notes"]
    page = report([run]).decode()
    assert "known latency" in page
    assert "&lt;b&gt;40 of 200" in page
    other = dataclasses.replace(made, host_id="another")
    codec.write_whole(folder.parent / "selftest.json", codec.dumps(other))
    assert list(sentences([run])) == []
