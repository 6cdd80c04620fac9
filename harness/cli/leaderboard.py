"""``harness leaderboard``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.common import console, find_run
from harness.errors import PlanError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("terminal", "md", "csv", "json", "parquet")


@click.command("leaderboard")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[RUN...]")
@click.option(
    "--sort", metavar="ORDER", default="speedup", show_default=True, help="Such as quality, p50, memory, size."
)
@click.option("--workload", metavar="W", help="Only this workload.")
@click.option("--pareto", is_flag=True, help="Only cells that no other one beats in every dimension.")
@click.option("--format", "view", type=click.Choice(FORMATS), default="terminal", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write to a file."
)
def command(
    *, runs: tuple[Path, ...], sort: str, workload: str | None, pareto: bool,
    view: str, as_json: bool, output: Path | None,
) -> None:  # fmt: skip
    """Show the leaderboard of one or more runs.

    Where none is named, the newest under ./results.
    """
    folders = [find_run(run) for run in runs] or [find_run(None)]
    print_board(folders, "json" if as_json else view, sort=sort, workload=workload, pareto=pareto, output=output)


def print_board(
    folders: Sequence[Path], view: str, *, sort: str = "speedup", workload: str | None = None,
    pareto: bool = False, output: Path | None = None,
) -> None:  # fmt: skip
    """Print or write the board of some runs; files that could not be read are named on stderr.

    Raises:
        PlanError: No such order or workload, or a format that needs a file.
    """
    from harness.leaderboard.table import table
    from harness.store import load_run

    if view == "parquet" and output is None:
        raise PlanError("parquet is binary, so it goes to a file", hint="add -o FILE")
    loaded = [load_run(folder) for folder in folders]
    for run in loaded:
        for problem in run.problems:
            click.echo(f"left out {run.path / problem.file}: {problem.what}", err=True)
    _emit(_chosen(table(loaded, sort=sort), workload, pareto=pareto), view, output)


def _emit(board: pd.DataFrame, view: str, output: Path | None) -> None:
    from harness.codec import write_whole
    from harness.leaderboard import views

    if view == "parquet" and output is not None:
        views.write_parquet(board, output)
    elif output is not None:
        write_whole(output, views.render(board, view).encode())
    elif view == "terminal":
        views.terminal(board, console())
    else:
        click.echo(views.render(board, view), nl=False)


def _chosen(board: pd.DataFrame, workload: str | None, *, pareto: bool) -> pd.DataFrame:
    from harness.leaderboard.pareto import mark_pareto
    from harness.params import suggest

    attrs = dict(board.attrs)
    if workload is not None:
        known = sorted(set(board["workload"]))
        if workload not in known:
            raise PlanError(f"no row has the workload {workload!r}", hint=suggest(workload, known, "workload"))
        board = board[board["workload"] == workload]
    if pareto:
        board = mark_pareto(board)
        board = board[board["pareto"].fillna(value=False)]
    board.attrs = attrs
    return board
