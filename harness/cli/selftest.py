"""``harness selftest``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.common import json_option, parse_pythons, print_json, print_table, python_option
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.runtime_bugs import Outcome
    from harness.selftest import BugRow, Line

OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "refused", "crashed", "not-installed", "not-evaluable")
MARKS = {"pass": "pass", "fail": "FAIL", "not-evaluable": "n/e"}


@click.command("selftest")
@click.option("--full", is_flag=True, help="Every trial: about an hour; run again, it goes on where it stopped.")
@click.option("--fresh", is_flag=True, help="With --full: begin anew.")
@click.option("--runtimes", is_flag=True, help="Instead: try public bugs on the runtimes that are installed.")
@click.option(
    "--only",
    multiple=True,
    metavar="GROUP",
    help="A group of lines, such as known, aa or vendor; with --runtimes a bug or a runtime; repeatable.",
)
@python_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results tree."
)
@json_option
@click.pass_obj
def command(
    app: App, *, full: bool, fresh: bool, runtimes: bool, only: tuple[str, ...], pythons: tuple[str, ...], out: Path,
    as_json: bool,
) -> int:  # fmt: skip
    """Measure what is known: times, ratios, noise, memory, other tools.

    Each line passes, fails, or cannot be evaluated with the reason (n/e). Exit code 1 where one fails.
    """
    if runtimes and (full or fresh):
        raise PlanError("--runtimes tries every bug once; it takes no --full and no --fresh")
    if pythons and not runtimes:
        raise PlanError("--python says where the bugs of a runtime are tried; --runtimes is not given")
    if runtimes:
        return _runtimes(app, only, parse_pythons(pythons), as_json=as_json)
    from harness.selftest import run_selftest

    def show(line: Line) -> None:
        text = f"{MARKS[line.verdict]:<5} {line.kind:<9} {line.name:<34} {line.reason}"
        click.echo(text, err=as_json)

    report, path = run_selftest(
        app.registry(),
        out=out,
        full=full,
        fresh=fresh,
        only=only,
        note=lambda text: click.echo(text, err=True),
        on_line=show,
    )
    if as_json:
        print_json(report)
    counts = ", ".join(f"{sum(line.verdict == word for line in report.lines)} {word}" for word in MARKS)
    click.echo(f"{counts}; report: {path}", err=True)
    return 1 if report.failed else 0


def _runtimes(app: App, only: tuple[str, ...], python: Mapping[str, str], *, as_json: bool) -> int:
    from harness.selftest import run_runtimes

    click.echo("each bug runs in a process of its own; all of them take up to three minutes", err=True)
    report = run_runtimes(app.registry(), only=only, python=python)
    if as_json:
        print_json(report)
    else:
        columns = ("bug", "runtime", "outcome", "reported as", "what the report says; what is seen here")
        print_table(columns, map(_cells, report.rows))
    counts = ", ".join(f"{report.count(word)} {word}" for word in OUTCOMES if report.count(word))
    click.echo(f"{counts}; {report.seconds:.0f} s", err=True)
    return 0


def _cells(row: BugRow) -> tuple[str, ...]:
    told = f"{row.summary}; {row.reason}" if row.reason else row.summary
    return row.bug, f"{row.runtime} {row.version}".strip(), row.outcome.replace("-", " "), row.symptom, told
