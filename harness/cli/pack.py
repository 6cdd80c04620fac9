"""``harness pack``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import find_run

if TYPE_CHECKING:
    from harness.cli.main import App


@click.command("pack")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Such as b.hpk.",
)
@click.pass_obj
def command(app: App, *, run: Path | None, output: Path) -> None:
    """Pack a run's artifacts, to measure them on another host."""
    from harness.build import pack

    folder = find_run(run)
    written = pack(folder, output, registry=app.registry())
    echo(f"{folder} -> {written}: measure it elsewhere with 'harness bench --from {written.name}'")
