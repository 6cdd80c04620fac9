"""``harness verify``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.common import find_run, json_option, print_json
from harness.errors import RecordError


@click.command("verify")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@json_option
def command(*, run: Path | None, as_json: bool) -> int:
    """Check that a run's files are whole and its summaries follow from them."""
    from harness.store import verify_run

    folder = find_run(run)
    problems = verify_run(folder)
    if as_json:
        print_json({"run": folder, "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(f"{problem.file}: {problem.what}")
        click.echo(
            f"{folder}: {len(problems)} problems" if problems else f"{folder}: whole, and every figure follows from it"
        )
    return RecordError.exit_code if problems else 0
