"""The public surface keeps what 0.1 had, and a plugin that was built against it still installs, conforms and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from surface import MODULES, describe

DATA = Path(__file__).parent / "data"
OLDEST = json.loads((DATA / "surface-0.1.json").read_text())


def test_the_whole_surface_is_recorded() -> None:
    assert set(OLDEST) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_public_name_has_gone(module: str) -> None:
    assert set(OLDEST[module]) - set(describe(module)) == set(), "deprecate it first: docs/stability.md"


@pytest.mark.parametrize("module", MODULES)
def test_every_call_that_was_right_still_is(module: str) -> None:
    now = describe(module)
    for name, then in OLDEST[module].items():
        had, has = then["parameters"], now[name]["parameters"]
        assert set(had) - set(has) == set(), f"{module}.{name} has lost a parameter"
        assert [key for key in has if key in had] == list(had) or then["kind"] == "dataclass"
        demanded = {key for key, must in has.items() if must} - {key for key, must in had.items() if must}
        assert demanded == set(), f"{module}.{name} demands {demanded}, which it did not"


def test_a_recorded_name_that_goes_is_noticed() -> None:
    assert set(OLDEST["harness.api"]) - set(describe("harness_torch")) != set()


@pytest.mark.slow
def test_the_plugin_of_the_oldest_surface_installs_and_conforms(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run([*pip, str(DATA / "oldest-plugin")], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("hatchling is not installed")
    assert done.returncode == 0, done.stderr
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "harness", "plugins", "check", "oldest", "--quick", "--all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target 'oldest-reference', outputs:dense: passed" in done.stdout
