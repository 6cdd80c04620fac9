"""``harness verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import find_run, json_option, print_facts, print_json
from harness.errors import RecordError

if TYPE_CHECKING:
    from harness.audit.again import Repetition


@click.command("verify")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--again",
    type=click.Path(path_type=Path, exists=True),
    metavar="RUN",
    help="A later run on this host: whether the cells that both measured come out again.",
)
@click.option("--demands", is_flag=True, help="List what is checked, and stop.")
@json_option
def command(*, run: Path | None, again: Path | None, demands: bool, as_json: bool) -> int:
    """Check that a run's files are whole and its summaries follow from them.

    Each breach names the demand that it breaks; --demands lists them all.
    """
    from harness.audit import DEMANDS, audit

    if demands:
        print_json(DEMANDS) if as_json else print_facts(DEMANDS.items())
        return 0
    folder = find_run(run)
    problems = audit(folder)
    repeated = _repeated(folder, find_run(again)) if again is not None else None
    problems += repeated.problems if repeated else ()
    if as_json:
        told = {"repetition": repeated} if repeated else {}
        print_json({"run": folder, "ok": not problems, "problems": problems, **told})
    else:
        if repeated is not None:
            echo(f"{len(repeated.same)} cells came out again: {', '.join(repeated.same) or 'none'}")
            for text in repeated.undecided:
                echo(f"undecided: {text}")
        for problem in problems:
            echo(f"{problem.file}: {problem.what} [{problem.demand}]")
        whole = f"whole, every figure follows from it, all {len(DEMANDS)} demands hold"
        echo(f"{folder}: {len(problems)} problems" if problems else f"{folder}: {whole}")
    return RecordError.exit_code if problems else 0


def _repeated(first: Path, second: Path) -> Repetition:
    from harness.audit.again import repetition
    from harness.store import load_run

    return repetition(load_run(first), load_run(second))
