"""``harness merge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import json_option, print_json
from harness.errors import PlanError, RecordError

if TYPE_CHECKING:
    from harness.store.merge import Source


@click.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="[UNIT=]PATH...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="TREE")
@click.option(
    "--stand-in", "stand_ins", multiple=True, metavar="UNIT=TEXT",
    help="UNIT is no machine of its own; TEXT says what it is, and every table repeats it.",
)  # fmt: skip
@json_option
def command(*, sources: tuple[str, ...], output: Path, stand_ins: tuple[str, ...], as_json: bool) -> int:
    """Join runs of several machines into one tree, each verified.

    PATH is a run or a folder of runs; UNIT names the machine that they were measured on, so that two machines of
    one model stay apart. A run that 'harness verify' finds fault with is refused by name, the others are merged.
    """
    from harness.audit import audit
    from harness.leaderboard.escape import visible
    from harness.store.merge import merge, twins

    found = merge(_sources(sources, stand_ins), output, audit)
    refused = [item for item in found if item.outcome == "refused"]
    same = twins(output)
    if as_json:
        print_json({"tree": output, "runs": found, "same_fingerprint": same})
        return RecordError.exit_code if refused else 0
    for item in found:
        echo(visible(f"{item.outcome}  {item.unit}  {item.run}"))
        for reason in item.reasons:
            echo(f"  {visible(reason)}")
    for names in same:
        echo(
            f"units {', '.join(names)} have one fingerprint: machines of one model, or one machine; nothing here tells"
        )
    echo(f"{output}: {len(found) - len(refused)} runs, {len(refused)} refused")
    return RecordError.exit_code if refused else 0


def _sources(texts: tuple[str, ...], stand_ins: tuple[str, ...]) -> list[Source]:
    from harness.store.merge import Source

    labels = dict(_pair(text, "--stand-in takes UNIT=TEXT") for text in stand_ins)
    found: list[Source] = []
    for text in texts:
        unit, path = ("", text) if "=" not in text or Path(text).exists() else _pair(text, "a source is [UNIT=]PATH")
        if not Path(path).is_dir():
            raise PlanError(f"there is no folder {path}", hint="such as alice-1=/mnt/a/results")
        found.append(Source(Path(path), unit, labels.pop(unit, "")))
    if labels:
        raise PlanError(f"--stand-in names no unit of the sources: {', '.join(labels)}")
    return found


def _pair(text: str, hint: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise PlanError(f"{hint}; got {text!r}")
    return name, value
