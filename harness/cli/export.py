"""``harness export``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.answer import echo
from harness.cli.common import find_run
from harness.errors import PlanError, RecordError

FORMATS = ("csv", "json", "parquet", "pytest-benchmark", "mlperf-system")


@click.command("export")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--format", "form", required=True, type=click.Choice(FORMATS), help="What reads it.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: stdout."
)
def command(*, run: Path | None, form: str, output: Path | None) -> None:
    """Write a run for other tools: spreadsheets, pytest-benchmark, MLPerf's checker.

    csv, json and parquet hold every column of docs/columns.md in base units.
    """
    from harness.codec import write_whole
    from harness.leaderboard.escape import visible
    from harness.store import load_run

    if form == "parquet" and output is None:
        raise PlanError("parquet is binary, so it goes to a file", hint="add -o FILE")
    loaded = load_run(find_run(run))
    for problem in loaded.problems:
        click.echo(visible(f"left out {problem.file}: {problem.what}"), err=True)
    raw = _bytes(loaded, form)
    if output is not None:
        write_whole(output, raw)
    else:
        echo(raw.decode(), nl=False)


def _bytes(run: object, form: str) -> bytes:
    import json

    from harness.exchange import benchmark_json, system_description
    from harness.leaderboard import render, table
    from harness.store import Run

    assert isinstance(run, Run)  # imported late, as all that the help does not need
    if form == "pytest-benchmark":
        return benchmark_json(run)
    if form == "mlperf-system":
        if run.info is None:
            raise RecordError(f"{run.path}/run.json cannot be read, so the host is not known")
        return (json.dumps(system_description(run.info, run.records), indent=2) + "\n").encode()
    return render(table(run), form)
