from __future__ import annotations

import json
import random
import signal
import subprocess
import time

import pytest
import records
import way

from harness.bench.records import doubtful
from harness.bench.run import exit_code
from harness.types import Coverage


@pytest.fixture
def toy(tmp_path):
    return way.install(tmp_path)


def raw_files(folder):
    """Return the launch-sets that the manifest lists, each as often as it was written."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [line["path"] for line in lines if line["path"].startswith("raw/")]


def test_every_cell_is_a_row_and_the_broken_ones_cost_only_themselves(toy):
    done = toy.run(
        "--methods", "baseline way-zero way-broken way-broken:how=segfault int8",
        "--targets", "way-a way-b:mode=segfault way-b:mode=leave way-b:mode=nan",
        "--format", "csv",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = toy.records()
    assert len(rows) == 20
    assert rows["baseline", "way-a"]["status"] == "ok"
    assert rows["way-zero", "way-a"]["status"] == "ok"
    assert rows["way-zero", "way-a"]["latency"]["ratio"]["point"] > 0
    assert rows["way-zero", "way-a"]["quality"]["items"] == 100
    assert "never works" in rows["way-broken", "way-a"]["reason"]
    assert rows["way-broken:how=segfault", "way-a"]["status"] == "crashed"
    assert "SIGSEGV" in rows["way-broken:how=segfault", "way-a"]["reason"]
    assert rows["int8", "way-a"]["status"] == "not-applicable"
    assert "no int8 kernels" in rows["int8", "way-a"]["reason"]
    for mode in ("segfault", "leave"):
        assert rows["baseline", f"way-b:mode={mode}"]["status"] == "crashed"
    assert "NaN or infinite for 100 of 100 items" in rows["baseline", "way-b:mode=nan"]["reason"]
    assert len(done.stdout.splitlines()) == 21


def test_strict_names_the_flags_and_the_share_that_ran():
    found = Coverage("int8", 0.5, 0.12, None)
    assert doubtful(("noisy", "not_actually_quantised"), found) == (
        "--strict: not_actually_quantised; 12% of the MACs ran in int8"
    )
    assert doubtful(("fallback",), None) == "--strict: fallback"
    assert doubtful(("noisy", "underpowered"), found) is None


@pytest.mark.slow
def test_strict_fails_the_row_of_a_cell_that_ran_something_else_and_keeps_its_figures(toy):
    done = toy.run("--methods", "baseline", "--targets", "way-a way-b:mode=leak", "--strict")
    assert done.returncode == 1, done.stderr
    rows = toy.records()
    assert rows["baseline", "way-a"]["status"] == "ok"
    leaking = rows["baseline", "way-b:mode=leak"]
    assert (leaking["status"], leaking["stage"], leaking["blame"]) == ("failed", "placement", "way")
    assert leaking["reason"] == "--strict: precision_leak; 0% of the MACs ran in float32"
    assert leaking["latency"]["p50_ns"]["point"] > 0
    assert "precision_leak" in done.stdout
    shown = subprocess.run(
        toy.command("placements", str(toy.runs()[-1]), "way-b"), env=toy.env, capture_output=True, text=True, check=True
    )
    assert "float16" in shown.stdout
    assert "precision_leak" in shown.stdout


def test_a_hang_is_a_timeout_and_a_memory_eater_is_oom(toy):
    done = toy.run(
        "--methods", "baseline", "--targets", "way-a way-b:mode=hang way-b:mode=eat",
        "--timeout", "10", "--memory-limit", "1GiB",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = toy.records()
    assert rows["baseline", "way-a"]["status"] == "ok"
    assert rows["baseline", "way-b:mode=hang"]["status"] == "timeout"
    assert rows["baseline", "way-b:mode=eat"]["status"] == "oom"


def test_a_score_that_raises_fails_its_cells_and_names_the_workload(toy):
    args = ["--methods", "baseline", "--targets", "way-a", "--workloads", "way-task:items=13"]
    done = subprocess.run(
        toy.command("bench", "--out", str(toy.out), *args), env=toy.env, cwd=toy.folder, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    record = toy.records()["baseline", "way-a"]
    assert record["stage"] == "accuracy"
    assert "thirteen items" in record["reason"]


def test_a_repeat_builds_nothing_and_starts_a_new_run(toy):
    first = toy.run("--methods", "baseline way-zero", "--targets", "way-a")
    second = toy.run("--methods", "baseline way-zero", "--targets", "way-a")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert len(toy.runs()) == 2
    entries = list((toy.folder / "cache").rglob("result.json"))
    assert max(path.stat().st_mtime for path in entries) < toy.runs()[-1].stat().st_ctime


def test_link_sets_compare_the_anchors_of_targets(toy):
    assert toy.run("--methods", "baseline", "--targets", "way-a way-b:work=40000").returncode == 0
    names = raw_files(toy.runs()[-1])
    assert len(names) == 18  # two blocks and their link, six sets each


def kill_at(toy, seconds, *args):
    process = subprocess.Popen(
        toy.bench(*args), env=toy.env, cwd=toy.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return process.returncode


def kill_and_complete(toy, times, seed):
    args = ("--methods", "baseline way-zero", "--targets", "way-a way-b")
    dice = random.Random(seed)
    for _ in range(times):
        if kill_at(toy, dice.uniform(0.3, 9.0), *args) == 0:
            break
    done = toy.run(*args)
    assert done.returncode == 0, done.stderr
    folder = toy.runs()[0]
    assert {record["status"] for record in toy.records().values()} == {"ok"}
    written = raw_files(folder)
    assert len(written) == len(set(written)) == 18
    check = subprocess.run(
        toy.command("verify", str(folder)), env=toy.env, cwd=toy.folder, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_kill_9_at_random_moments_loses_no_finished_set(toy):
    kill_and_complete(toy, 3, seed=1)


@pytest.mark.slow
def test_kill_9_ten_times_loses_no_finished_set(toy):
    kill_and_complete(toy, 10, seed=2)


def test_interrupting_says_how_to_resume(toy):
    args = ("--methods", "baseline way-zero", "--targets", "way-a way-b")
    process = subprocess.Popen(
        toy.bench(*args), env=toy.env, cwd=toy.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(toy.out.glob("*/*/raw/*.json.gz")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 130, talk
    assert "Traceback" not in talk
    assert "same command" in talk
    assert toy.run(*args).returncode == 0
    assert len(toy.runs()) == 1


def test_strict_fails_on_a_flag_that_puts_a_result_in_doubt():
    doubtful = records.record(flags=("not_actually_quantised",))
    assert exit_code([doubtful], strict=True) == 1
    assert exit_code([doubtful], strict=False) == 0
