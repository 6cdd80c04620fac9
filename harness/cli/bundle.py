"""``harness bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import find_run

if TYPE_CHECKING:
    from harness.cli.main import App


@click.command("bundle")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("cell", metavar="CELL")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="The file to write, such as cell.hev.",
)
@click.option("--with-artifacts", is_flag=True, help="Also pack the artifacts, so that the same bytes are measured.")
@click.pass_obj
def command(app: App, *, run: Path, cell: str, output: Path, with_artifacts: bool) -> None:
    """Pack all evidence about one cell into one file.

    CELL is METHOD@TARGET, a cell_id or its beginning. RUN is a run; of a tree its newest run is meant.
    """
    from harness.bundle import title, write_bundle
    from harness.leaderboard.escape import visible
    from harness.report.page import HINT

    folder = find_run(run)
    registry = app.registry() if with_artifacts else None
    info = write_bundle(folder, cell, output, with_artifacts=with_artifacts, registry=registry)
    size = output.stat().st_size / 2**10
    echo(f"{output}: {visible(title(info.labels))}, {size:.0f} KiB, artifacts: "
               f"{'packed' if with_artifacts else 'not packed'}")  # fmt: skip
    if not info.with_page:
        click.echo(f"without report.html, which needs the report extra: {HINT}", err=True)
    echo(f"try it with: harness reproduce {output}")
    for text in info.breaks:
        click.echo(f"the evidence breaks a demand of 'harness verify': {visible(text)}", err=True)
    if info.redacted:
        click.echo(f"paths of this machine were taken out of {', '.join(info.redacted)}", err=True)
    if "path" in info.labels["workload"]:
        click.echo(f"the cell's own name holds a path, which stays: {visible(info.labels['workload'])}", err=True)
