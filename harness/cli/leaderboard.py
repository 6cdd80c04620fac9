"""``harness leaderboard``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from harness.cli.answer import echo
from harness.cli.common import console, find_run
from harness.errors import PlanError

if TYPE_CHECKING:
    import pandas as pd

Form = Literal["point", "interval"]
FORMATS = ("terminal", "md", "csv", "json", "parquet")


@click.command("leaderboard")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[RUN...]")
@click.option(
    "--sort",
    metavar="ORDER",
    default="speedup",
    show_default=True,
    help="Such as quality, p50, memory, size, or a column of numbers.",
)
@click.option("--workload", metavar="W", help="Only this workload.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="COND",
    help="Only rows such as 'target=openvino,tflite', 'p50<2ms', 'method~int8'; repeatable.",
)
@click.option("--group", "groups", multiple=True, metavar="COLUMN", help="One table for each value, such as target.")
@click.option(
    "--gate", metavar="GATE", help="Rank only what keeps 99 or 99.9 (% of the float anchor), or 'quality>=97.5'."
)
@click.option(
    "--gate-by",
    type=click.Choice(("point", "interval")),
    default="point",
    show_default=True,
    help="What must pass: the estimate, or the worse end of its interval.",
)
@click.option(
    "--show",
    "extras",
    multiple=True,
    metavar="COLUMN",
    help="A column: oracle, energy or roofline; repeatable.",
)
@click.option("--pareto", is_flag=True, help="Only cells that no other one beats in every dimension.")
@click.option("--overall", "across", is_flag=True, help="One line a method: geometric means over workloads.")
@click.option("--format", "view", type=click.Choice(FORMATS), help="Default: terminal, or what -o ends in.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a file.")
def command(
    *, runs: tuple[Path, ...], sort: str, workload: str | None, conditions: tuple[str, ...], groups: tuple[str, ...],
    gate: str | None, gate_by: Form, extras: tuple[str, ...], pareto: bool, across: bool, view: str | None,
    as_json: bool, output: Path | None,
) -> None:  # fmt: skip
    """Show the leaderboard of one or more runs.

    Where none is named, the newest under ./results. Ranks are by speed on a target; "2-4" is a tie that the evidence
    does not break.
    """
    folders = [find_run(run) for run in runs] or [find_run(None)]
    view = "json" if as_json else view or _ending(output)
    choice = Choice(sort, workload, conditions, groups, gate, gate_by, pareto=pareto, extras=extras)
    if across:
        _print_overall(folders, view, choice, output)
    else:
        print_board(folders, view, choice, output)


@dataclass(frozen=True)
class Choice:
    """Which rows, in which order and sections, and who is ranked."""

    sort: str = "speedup"
    workload: str | None = None
    conditions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    gate: str | None = None
    gate_by: Form = "point"
    pareto: bool = False
    extras: tuple[str, ...] = ()


DEFAULT = Choice()


def _ending(output: Path | None) -> str:
    if output is None:
        return "terminal"
    ending = output.suffix.removeprefix(".")
    if ending not in FORMATS[1:]:
        raise PlanError(
            f"the ending of {output.name} names no format", hint=f"give --format, one of {', '.join(FORMATS[1:])}"
        )
    return ending


def print_board(folders: Sequence[Path], view: str, choice: Choice = DEFAULT, output: Path | None = None) -> None:
    """Print or write the board of some runs; files that could not be read are named on stderr.

    Raises:
        PlanError: No such order, workload, condition or gate, or a format that needs a file.
    """
    _check(view, output)
    board = _board(folders, choice)
    if view != "terminal":  # which shows them itself
        _name_problems(board)
    _emit(board, view, output)


def _check(view: str, output: Path | None) -> None:
    if view == "parquet" and output is None:
        raise PlanError("parquet is binary, so it goes to a file", hint="add -o FILE")
    if view == "terminal" and output is not None:
        raise PlanError("the terminal's view goes to a terminal", hint="--format md is its form for files")


def _name_problems(board: pd.DataFrame) -> None:
    from harness.leaderboard.escape import visible

    for problem in board.attrs["problems"]:
        click.echo(f"left out {visible(problem)}", err=True)


def _board(folders: Sequence[Path], choice: Choice) -> pd.DataFrame:
    from harness.leaderboard import group_columns, parse_gate, parse_where, table, where
    from harness.leaderboard.extras import check_extras
    from harness.store import load_run

    gate = None if choice.gate is None else parse_gate(choice.gate, choice.gate_by)
    groups, extras = group_columns(choice.groups), check_extras(choice.extras)
    for text in choice.conditions:  # refused before anything is read
        parse_where(text)
    board = table([load_run(folder) for folder in folders], sort=choice.sort, gate=gate)
    chosen = where(_chosen(board, choice.workload, pareto=choice.pareto), choice.conditions)
    chosen.attrs["group"], chosen.attrs["show"] = groups, extras
    return chosen


def _print_overall(folders: Sequence[Path], view: str, choice: Choice, output: Path | None) -> None:
    from harness.codec import write_whole
    from harness.leaderboard import overall, overall_table, render_overall

    _check(view, output)
    if view == "parquet":
        raise PlanError("the overall board has no Parquet form", hint="--format csv or json")
    board = _board(folders, choice)
    _name_problems(board)
    lines = overall(board)
    if view == "terminal":
        console().print(overall_table(lines))
    elif output is not None:
        write_whole(output, render_overall(lines, view))
    else:
        echo(render_overall(lines, view), nl=False)


def _emit(board: pd.DataFrame, view: str, output: Path | None) -> None:
    from harness.codec import write_whole
    from harness.leaderboard import render, terminal

    if output is not None:
        write_whole(output, render(board, view))
    elif view == "terminal":
        terminal(board, console())
    else:
        echo(render(board, view), nl=False)


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
