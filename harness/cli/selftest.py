"""``harness selftest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.common import json_option, print_json

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.selftest import Line

MARKS = {"pass": "pass", "fail": "FAIL", "not-evaluable": "n/e"}


@click.command("selftest")
@click.option("--full", is_flag=True, help="Every trial: about an hour; run again, it goes on where it stopped.")
@click.option("--fresh", is_flag=True, help="With --full: begin anew.")
@click.option(
    "--only", multiple=True, metavar="GROUP", help="A group of lines, such as known, aa or vendor; repeatable."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results tree."
)
@json_option
@click.pass_obj
def command(app: App, *, full: bool, fresh: bool, only: tuple[str, ...], out: Path, as_json: bool) -> int:
    """Measure what is known: times, ratios, noise, memory, other tools.

    Each line passes, fails, or cannot be evaluated with the reason (n/e). Exit code 1 where one fails.
    """
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
