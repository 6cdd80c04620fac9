"""``harness history``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS, json_option, print_json
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.compare.history import Step
    from harness.types import Interval


@click.command("history")
@click.argument("cell", metavar="CELL")
@click.argument("trees", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[TREE...]")
@click.option(
    "--metric", type=click.Choice(["ratio", "p50"]), default="ratio", show_default=True,
    help="t(cell) / t(anchor), or the median in ns.",
)  # fmt: skip
@json_option
def command(*, cell: str, trees: tuple[Path, ...], metric: str, as_json: bool) -> None:
    """Show a cell over many runs, and where it changed.

    CELL is a cell_id or its beginning; a TREE holds runs, default ./results. Units are kept apart.
    """
    from harness.cli.common import print_table
    from harness.compare.history import history
    from harness.leaderboard.escape import visible
    from harness.store import find_runs, load_run

    folders = [run for tree in trees or (RESULTS,) if tree.exists() for run in find_runs(tree)]
    if not folders:
        raise PlanError("there is no run to look at", hint="'harness bench' makes one")
    found = history([load_run(folder) for folder in folders], cell, metric)
    if as_json:
        print_json(found)
        return
    for series in found:
        steps = {step.at: step for step in series.steps}
        rows = [
            (
                point.run,
                " ".join(text if not index else f"({text})" for index, text in enumerate(_ends(point.value)) if text),
                point.noise,
                visible(point.software),
                _changed(steps.get(point.run)),
            )
            for point in series.points
        ]
        title = visible(f"{series.unit}: {series.name}")
        print_table(("run", series.metric, "noise", "runtime", "change point"), rows, title=title)
        if len(series.points) < 6:
            echo(f"{len(series.points)} runs with figures: a change point needs 3 on each side")


def _ends(value: Interval) -> tuple[str, str]:
    from harness.leaderboard.digits import ranged

    return ranged(value.point, value.low, value.high)


def _changed(step: Step | None) -> str:
    return "" if step is None else f"changed by {step.change:+.1%}, p {step.p_value:.3f}"
