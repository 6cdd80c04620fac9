"""``harness cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import json_option, print_json

if TYPE_CHECKING:
    from harness.build.cache import Usage

DAY_S = 86_400.0


def size(count: float) -> str:
    """Write bytes with a unit, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _say(usage: Usage, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"root": usage.root, "entries": usage.entries, "bytes": usage.bytes})
    else:
        echo(f"{what}{usage.entries} entries, {size(usage.bytes)} in {usage.root}")


@click.group("cache", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """Show, prune or clear the cache of built models."""
    if ctx.invoked_subcommand is None:
        _show(as_json=as_json)


def _show(*, as_json: bool) -> None:
    from harness.build.cache import Cache

    _say(Cache().show(), "", as_json=as_json)


@command.command("show")
@json_option
def show(*, as_json: bool) -> None:
    """Say where the cache is and what it holds."""
    _show(as_json=as_json)


@command.command("prune")
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Remove what was not used for so long."
)
@click.option("--max-size", metavar="SIZE", help="Then remove the longest unused until the rest fits, such as 2GiB.")
@json_option
def prune(*, older_than: float | None, max_size: str | None, as_json: bool) -> None:
    """Remove what was not used for long; without options, for 30 days."""
    from harness.build.cache import Cache
    from harness.cli.common import parse_size

    limit = parse_size(max_size, "--max-size")
    days = 30.0 if older_than is None and limit is None else older_than
    removed = Cache().prune(older_than_s=None if days is None else days * DAY_S, max_bytes=limit)
    _say(removed, "removed ", as_json=as_json)


@command.command("clear")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clear(*, yes: bool, as_json: bool) -> None:
    """Remove everything; the next run builds anew."""
    from harness.build.cache import Cache

    if not yes:
        held = Cache().show()
        click.confirm(f"remove {held.entries} entries, {size(held.bytes)} in {held.root}?", abort=True, err=True)
    _say(Cache().clear(), "removed ", as_json=as_json)
