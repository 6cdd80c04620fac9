"""``harness procure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.procure import Procurement

FORMATS = ("terminal", "md", "csv", "json")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False)


@click.command("procure")
@click.argument("trees", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[TREE...]")
@click.option("--workload", required=True, metavar="W", help="What the machine is to run.")
@click.option("--slo", "limit", metavar="LIMIT", help="Such as 'p99<10ms'.")
@click.option(
    "--accuracy", "floor", metavar="FLOOR", help="'>=99%' of the fp32 anchor, or '>=97.5' in the metric's unit."
)
@click.option("--prices", "prices_file", type=_FILE, metavar="FILE", help="prices.toml; without it there is no cost.")
@click.option("--format", "view", type=click.Choice(FORMATS), help="Default: terminal, or what -o ends in.")
@click.option("-o", "--output", type=_OUT, metavar="FILE", help="Write a file.")
@click.option("--plot", type=_OUT, metavar="FILE.svg", help="Write the tornado of each unit's cost.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    *, trees: tuple[Path, ...], workload: str, limit: str | None, floor: str | None, prices_file: Path | None,
    view: str | None, output: Path | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say which machine is worth it within the limits, and what it costs.

    A TREE holds runs, such as 'harness merge' makes; default: ./results. Nothing that was not measured or priced is
    estimated, and what the evidence does not decide is said.
    """
    from harness.codec import write_whole
    from harness.procure import Prices, parse_floor, parse_slo, procure, read_prices
    from harness.procure.render import svg
    from harness.store import find_runs, load_run

    view = "json" if as_json else view or (output.suffix.removeprefix(".") if output else "terminal")
    if view not in FORMATS or (view == "terminal" and output):
        raise PlanError("the ending of the file names no format", hint="give --format, one of md, csv, json")
    folders = [run for tree in trees or (RESULTS,) if tree.exists() for run in find_runs(tree)]
    if not folders:
        raise PlanError("there is no run to choose from", hint="'harness merge' joins runs of machines into a tree")
    found = procure(
        [load_run(folder) for folder in folders],
        workload=workload,
        slo=parse_slo(limit) if limit else None,
        accuracy=parse_floor(floor) if floor else None,
        prices=read_prices(prices_file) if prices_file else Prices(),
    )
    if plot is not None:
        if not any(offer.bars for offer in found.offers):
            raise PlanError("there is no cost to plot", hint="--prices names the units' prices")
        write_whole(plot, svg(found).encode())
    _emit(found, view, output)


def _emit(found: Procurement, view: str, output: Path | None) -> None:
    from harness.codec import dumps, write_whole
    from harness.procure import render

    if view == "terminal":
        _terminal(found)
        return
    if view == "json":
        text = dumps(found, indent=2).decode() + "\n"
    else:
        text = render.markdown(found) if view == "md" else render.to_csv(found)
    if output is not None:
        write_whole(output, text.encode())
    else:
        echo(text, nl=False)


def _terminal(found: Procurement) -> None:
    from harness.cli.common import print_table
    from harness.leaderboard.escape import visible
    from harness.procure import render

    print_table(render.head(found), [[visible(text) for text in row] for row in render.rows(found)])
    for text in (*render.legend(found), *render.evens(found)):
        echo(visible(text))
    for offer in found.offers:
        if offer.bars:
            part = "" if offer.cost else ", without energy"
            title = visible(f"what the cost of {offer.unit} hangs on{part}, {found.currency} per million")
            print_table(("assumption", "from", "cost", ""), render.bars(offer), title=title)
    for name, texts in (("not decided", found.undecided), ("source", found.sources)):
        for text in texts:
            echo(visible(f"{name}: {text}"))
    for problem in found.problems:
        click.echo(f"left out {visible(problem)}", err=True)
