"""The golden tree is what its command writes, and every view can be built on it."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.store import find_runs, load_run


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith((".lock", "manifest.jsonl"))}


def test_it_is_what_the_command_writes(tmp_path: Path) -> None:
    golden.write(tmp_path)
    assert files(tmp_path) == files(golden.GOLDEN), "python tests/golden.py"


def test_it_has_rows_of_many_kinds() -> None:
    (run,) = find_runs(golden.GOLDEN)
    records = load_run(run).records
    assert {record.status for record in records} >= {"ok", "crashed", "not-applicable", "unavailable"}
    assert {r.latency.verdict for r in records if r.latency} >= {
        "anchor",
        "faster",
        "equivalent",
        "slower",
        "unresolved",
    }


@pytest.mark.parametrize("form", ["md", "csv", "json"])
def test_views_are_built_on_it(form: str) -> None:
    (run,) = find_runs(golden.GOLDEN)
    done = CliRunner().invoke(cli, ["leaderboard", str(run), "--format", form])
    assert done.exit_code == 0
    assert "SIGSEGV" in done.output


def test_an_author_gets_it_with_a_call(tmp_path: Path) -> None:
    from harness import load_results
    from harness.testing import golden_results

    run = golden_results(tmp_path / "deep" / "golden")
    assert files(tmp_path / "deep" / "golden") == files(golden.GOLDEN)
    assert golden_results(tmp_path / "deep" / "golden") == run
    (found,) = find_runs(tmp_path / "deep" / "golden")
    assert found == run
    table = load_results(tmp_path / "deep" / "golden")
    assert len(table) == len(load_run(run).records)
    assert table.attrs["problems"] == []
