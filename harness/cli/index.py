"""``harness index``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS
from harness.errors import RecordError


@click.command("index")
@click.argument("tree", required=False, default=RESULTS, type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: TREE/index.parquet.")
def command(*, tree: Path, output: Path | None) -> int:
    """Index a large tree of runs in one file, for 'harness fleet'."""
    from harness.exchange.index import build_index
    from harness.leaderboard.escape import visible

    start = time.perf_counter()
    built = build_index(tree, output)
    for problem in built.problems:
        click.echo(visible(f"left out {problem}"), err=True)
    seconds = time.perf_counter() - start
    echo(f"{built.file}: {built.records} records of {built.runs} runs in {seconds:.1f} s")
    return RecordError.exit_code if built.problems else 0
