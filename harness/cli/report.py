"""``harness report``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from harness.cli.answer import echo
from harness.cli.common import find_run


@click.command("report")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[RUN...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    default="report.html",
    show_default=True,
    help="The file to write.",
)
@click.option("--sort", metavar="ORDER", default="speedup", show_default=True, help="As of harness leaderboard.")
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
@click.option("--title", default="", metavar="TEXT", help="Default: the workloads.")
def command(
    *, runs: tuple[Path, ...], output: Path, sort: str, gate: str | None,
    gate_by: Literal["point", "interval"], title: str,
) -> None:  # fmt: skip
    """Write one self-contained HTML file about one or more runs.

    Where no run is named, the newest under ./results. Files that cannot be read are named, in it and on stderr.
    """
    from harness.codec import write_whole
    from harness.leaderboard import parse_gate
    from harness.leaderboard.escape import visible
    from harness.report import report
    from harness.store import load_run

    bound = None if gate is None else parse_gate(gate, gate_by)
    loaded = [load_run(folder) for folder in ([find_run(run) for run in runs] or [find_run(None)])]
    for run in loaded:
        for problem in run.problems:
            click.echo(f"left out {visible(f'{run.path.name}/{problem.file}: {problem.what}')}", err=True)
    raw = report(loaded, gate=bound, sort=sort, title=title)
    write_whole(output, raw)
    echo(f"{output}: {len(raw) / 2**20:.1f} MiB, opens offline")
