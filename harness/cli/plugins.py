"""``harness plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import json_option, print_json, print_table

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.plugins import PluginInfo


@click.group("plugins", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """List the plugins: what they offer, or why they are not used."""
    if ctx.invoked_subcommand is None:
        show(ctx.obj, as_json=as_json)


@command.command("list")
@json_option
@click.pass_obj
def list_plugins(app: App, *, as_json: bool) -> None:
    """List every plugin with its distribution, version and offers, or why it is not used."""
    show(app, as_json=as_json)


def _row(info: PluginInfo) -> tuple[str, ...]:
    offers = "; ".join(f"{kind}s {', '.join(names)}" for kind, names in sorted(info.offers.items()))
    told = " - ".join(text for text in (offers, info.message) if text)
    return info.name, info.state, f"{info.distribution} {info.version}", info.module, told or "nothing"


def _data(info: PluginInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "module": info.module,
        "distribution": info.distribution,
        "version": info.version,
        "state": info.state,
        "offers": {kind: list(names) for kind, names in info.offers.items()},
        "message": info.message,
    }


def show(app: App, *, as_json: bool) -> None:
    """Print the plugins that are installed."""
    infos = app.registry().plugins
    if as_json:
        print_json([_data(info) for info in infos])
    else:
        print_table(("plugin", "state", "distribution", "module", "offers, or why not"), map(_row, infos))
