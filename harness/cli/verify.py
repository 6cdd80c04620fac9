"""``harness verify``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.common import find_run, json_option, print_facts, print_json
from harness.errors import RecordError


@click.command("verify")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--demands", is_flag=True, help="List what is checked, and stop.")
@json_option
def command(*, run: Path | None, demands: bool, as_json: bool) -> int:
    """Check that a run's files are whole and its summaries follow from them.

    Each breach names the demand that it breaks; --demands lists them all.
    """
    from harness.audit import DEMANDS, audit

    if demands:
        print_json(DEMANDS) if as_json else print_facts(DEMANDS.items())
        return 0
    folder = find_run(run)
    problems = audit(folder)
    if as_json:
        print_json({"run": folder, "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(f"{problem.file}: {problem.what} [{problem.demand}]")
        whole = f"whole, every figure follows from it, all {len(DEMANDS)} demands hold"
        click.echo(f"{folder}: {len(problems)} problems" if problems else f"{folder}: {whole}")
    return RecordError.exit_code if problems else 0
