"""The example plugin, installed the way a third party's is: its own distribution, found by its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "harness-example"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install into a folder of its own, so that the environment of the tests stays as it is."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    result = subprocess.run([*pip, str(EXAMPLE)], capture_output=True, text=True, timeout=120)
    if result.returncode and "hatchling" in result.stderr:
        pytest.skip(f"hatchling is not installed: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(cache)}


def _harness(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "harness", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_is_listed_with_its_own_distribution(environment: dict[str, str]) -> None:
    listed = json.loads(_harness(environment, "plugins", "list", "--json"))
    (example,) = [entry for entry in listed if entry["name"] == "example"]
    assert (example["distribution"], example["version"], example["state"]) == ("harness-example", "0.1.0", "loaded")


def test_its_method_and_its_target_are_offered(environment: dict[str, str]) -> None:
    assert "weight-clipping" in _harness(environment, "methods")
    targets = _harness(environment, "targets")
    assert "onnx-reference" in targets


def test_its_parameters_are_described(environment: dict[str, str]) -> None:
    assert "percentile" in _harness(environment, "methods", "weight-clipping")


def test_its_own_tests_pass(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(EXAMPLE / "tests")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=EXAMPLE)
    assert result.returncode == 0, result.stdout
