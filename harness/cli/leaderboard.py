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
@click.option("--format", "view", type=click.Choice(FORMATS), help="Default: terminal, or what -o ends in.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a file.")
def command(
    *, runs: tuple[Path, ...], sort: str, workload: str | None, pareto: bool,
    view: str | None, as_json: bool, output: Path | None,
) -> None:  # fmt: skip
    """Show the leaderboard of one or more runs.

    Where none is named, the newest under ./results.
    """
    folders = [find_run(run) for run in runs] or [find_run(None)]
    view = "json" if as_json else view or _ending(output)
    print_board(folders, view, sort=sort, workload=workload, pareto=pareto, output=output)


def _ending(output: Path | None) -> str:
    if output is None:
        return "terminal"
    ending = output.suffix.removeprefix(".")
    if ending not in FORMATS[1:]:
        raise PlanError(
            f"the ending of {output.name} names no format", hint=f"give --format, one of {', '.join(FORMATS[1:])}"
        )
    return ending


def print_board(
    folders: Sequence[Path], view: str, *, sort: str = "speedup", workload: str | None = None,
    pareto: bool = False, output: Path | None = None,
) -> None:  # fmt: skip
    """Print or write the board of some runs; files that could not be read are named on stderr.

    Raises:
        PlanError: No such order or workload, or a format that needs a file.
    """
    from harness.leaderboard import table
    from harness.store import load_run

    if view == "parquet" and output is None:
        raise PlanError("parquet is binary, so it goes to a file", hint="add -o FILE")
    if view == "terminal" and output is not None:
        raise PlanError("the terminal's view goes to a terminal", hint="--format md is its form for files")
    board = table([load_run(folder) for folder in folders], sort=sort)
    if view != "terminal":  # which shows them itself
        for problem in board.attrs["problems"]:
            click.echo(f"left out {problem}", err=True)
    _emit(_chosen(board, workload, pareto=pareto), view, output)


def _emit(board: pd.DataFrame, view: str, output: Path | None) -> None:
    from harness.codec import write_whole
    from harness.leaderboard import render, terminal

    if output is not None:
        write_whole(output, render(board, view))
    elif view == "terminal":
        terminal(board, console())
    else:
        click.echo(render(board, view), nl=False)


def _chosen(board: pd.DataFrame, workload: str | None, *, pareto: bool) -> pd.DataFrame:
    from harness.leaderboard import mark_pareto
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
