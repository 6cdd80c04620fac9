"""``harness compare``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.compare import Comparison
    from harness.types import Record

FORMATS = ("terminal", "md", "junit", "json")
_ENDINGS = {"md": "md", "xml": "junit", "json": "json"}


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--fail-if", "rules", multiple=True, metavar="RULE", help="Such as 'slower>5%'; repeatable; sets exit 1.")
@click.option(
    "--unresolved",
    type=click.Choice(["pass", "fail"]),
    default="pass",
    show_default=True,
    help="How a cell that the evidence does not decide counts for the exit code.",
)
@click.option("--same-recipe", is_flag=True, help="Compare equal requests whatever model came of them; labelled so.")
@click.option("--absolute", is_flag=True, help="Compare absolute times also where the anchors are equal.")
@click.option("--format", "view", type=click.Choice(FORMATS), help="Default: terminal, or what -o ends in.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a file.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Where ::METHOD looks."
)
@click.pass_obj
def command(
    app: App, *, a: str, b: str, rules: tuple[str, ...], unresolved: str, same_recipe: bool, absolute: bool,
    view: str | None, output: Path | None, as_json: bool, root: Path,
) -> int:  # fmt: skip
    """Say whether B is worse than A, cell by cell, with intervals.

    A and B are runs (RUN, or a tree whose newest run is meant), or one method or target of a run:
    RUN::METHOD, RUN::METHOD@TARGET, RUN::@TARGET, ::METHOD of the newest run.
    """
    from harness.compare import compare, outcome, parse_rule, parse_side

    parsed = [parse_rule(rule) for rule in rules]
    view = "json" if as_json else view or _ending(output)
    found = compare(
        parse_side(a, root),
        parse_side(b, root),
        same_recipe=same_recipe,
        absolute=absolute,
        rules=parsed,
        aggregates=_aggregates(app),
    )
    fails = unresolved == "fail"
    _emit(found, view, output, fails=fails)
    if not found.compared:
        reasons = sorted({pair.refused for pair in found.pairs})
        raise PlanError(f"no cell of {a} can be compared with {b}: {reasons[0] if reasons else 'there is none'}")
    return outcome(found, unresolved_fails=fails)


def _ending(output: Path | None) -> str:
    if output is None:
        return "terminal"
    ending = output.suffix.removeprefix(".")
    if ending not in _ENDINGS:
        raise PlanError(f"the ending of {output.name} names no format", hint=f"one of {', '.join(_ENDINGS)}")
    return _ENDINGS[ending]


def _aggregates(app: App) -> Callable[[Record], Callable[[Any], float] | None]:
    """Return what finds a workload's aggregate; plugins are loaded for metrics that need them only."""

    def find(record: Record) -> Callable[[Any], float] | None:
        value = record.quality.value if record.quality else None
        if value is None or value.method.lower().startswith("wilson"):
            return None
        workloads = app.registry().workloads
        offer = workloads.get(record.cell.workload.name)
        return offer.spec.aggregate if offer is not None else None

    return find


def _emit(found: Comparison, view: str, output: Path | None, *, fails: bool) -> None:
    from harness.codec import dumps, write_whole
    from harness.compare import junit, markdown

    if view == "terminal":
        if output is not None:
            raise PlanError("the terminal's view goes to a terminal", hint="--format md is its form for files")
        _terminal(found, fails=fails)
        return
    texts = {
        "md": lambda: markdown(found, unresolved_fails=fails),
        "junit": lambda: junit(found, unresolved_fails=fails),
        "json": lambda: dumps(found, indent=2).decode() + "\n",
    }
    text = texts[view]()
    if output is not None:
        write_whole(output, text.encode())
    else:
        echo(text, nl=False)


def _terminal(found: Comparison, *, fails: bool) -> None:
    from harness.cli.common import print_table
    from harness.compare import render
    from harness.leaderboard.escape import visible

    echo(f"A  {visible(found.a)}\nB  {visible(found.b)}")
    body = render.rows(found)
    if body:
        print_table(render.HEAD, [[visible(text) for text in row] for row in body])
    for text, names in render.refusals(found):
        echo(f"not compared  {visible(names)}: {visible(text)}")
    for text, names in render.remarks(found):
        echo(visible(f"{text}: {names}"))
    for item in found.ruled:
        if item.outcome in {"fail", "unresolved"}:
            echo(
                f"{render.sign(item.outcome)} {item.rule}  {item.outcome}  {visible(item.name)}: {visible(item.reason)}"
            )
    for text in (*render.summary(found, unresolved_fails=fails), *found.notes):
        echo(visible(text))
    for problem in found.problems:
        click.echo(f"left out {visible(problem)}", err=True)
