"""What ``harness plugins new`` writes installs, is listed, conforms and runs, as it is written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.errors import PlanError
from harness.scaffold import write

KINDS = ("method", "target", "workload", "exporter")


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_a_complete_distribution(kind: str, tmp_path: Path) -> None:
    made = write("low-rank", kind, tmp_path)
    project = tomllib.loads((made.folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "harness-low-rank"
    assert project["entry-points"]["harness"] == {"low-rank": "harness_low_rank"}
    files = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()}
    assert files == {"pyproject.toml", "README.md", "harness_low_rank.py", "tests/test_harness_low_rank.py"}
    for path in made.folder.rglob("*.py"):
        compile(path.read_text(), path, "exec")
        assert "$" not in path.read_text()


@pytest.mark.parametrize("name", ["Low-Rank", "low_rank", "", "harness-", "1st", "a/b", "low--rank"])
def test_another_name_than_kebab_case_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="is no name for a plugin"):
        write(name, "method", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write("low-rank", "method", tmp_path)
    with pytest.raises(PlanError, match="is there already"):
        write("harness-low-rank", "target", tmp_path)


def harness(env: dict[str, str], *arguments: str, where: Path) -> str:
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env, cwd=where, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_is_listed_conforms_and_runs_unedited(kind: str, tmp_path: Path) -> None:
    made, site = write(f"new-{kind}", kind, tmp_path), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run([*pip, str(made.folder)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("hatchling is not installed")
    assert done.returncode == 0, done.stderr
    env = {**os.environ, "PYTHONPATH": str(site)}
    listed = json.loads(harness(env, "plugins", "list", "--json", where=tmp_path))
    assert [entry["state"] for entry in listed if entry["name"] == made.entry] == ["loaded"]
    told = json.loads(harness(env, "plugins", "check", made.entry, "--json", where=tmp_path))
    states = [result["state"] for result in told]
    assert states.count("passed") > 12
    assert set(states) <= {"passed", "skipped"}, [result for result in told if result["state"] == "failed"]
    board = harness(env, *shlex.split(made.bench)[1:], "--out", str(tmp_path / "results"), where=tmp_path)
    assert made.entry in board
    test = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        str(made.folder / "tests"),
    ]
    done = subprocess.run(test, capture_output=True, text=True, timeout=280, env=env, cwd=made.folder, check=False)
    assert done.returncode == 0, done.stdout
