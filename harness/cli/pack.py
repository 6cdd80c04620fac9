"""``harness pack``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.common import find_run


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
def command(*, run: Path | None, output: Path) -> None:
    """Pack a run's artifacts, to measure them on another host."""
    from harness.build import pack

    folder = find_run(run)
    written = pack(folder, output)
    click.echo(f"{folder} -> {written}: measure it elsewhere with 'harness bench --from {written.name}'")
