"""``harness plugins``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import json_option, print_json, print_table, split_words

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.plugins import PluginInfo
    from harness.testing.results import State


MOST_NAMES = 40  # of one kind in a row of the table; --json has all


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


@command.command("check")
@click.argument("plugin")
@click.option("--quick", is_flag=True, help="One test model, float32 only.")
@click.option(
    "--samples", multiple=True, metavar="KINDS", help="Layer kinds to test on, such as dense,conv; repeatable."
)
@click.option(
    "--limit", "limit_s", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds of one call."
)
@click.option("--all", "show_all", is_flag=True, help="Show what passed too.")
@json_option
@click.pass_obj
def check(
    app: App, plugin: str, *, quick: bool, samples: tuple[str, ...], limit_s: float, show_all: bool, as_json: bool
) -> int:
    """Run the conformance kit on an installed plugin: its entry point, module or distribution."""
    from harness.testing.bench import Settings
    from harness.testing.run import check_plugin

    kinds = split_words(samples, "--samples") or None
    settings = Settings(quick=quick, samples=kinds, limit_s=limit_s)
    report = check_plugin(app.registry(), plugin, settings, on_wait=lambda text: click.echo(text, err=True))
    if as_json:
        print_json(list(report.results))
        return 1 if report.failed else 0
    for result in report.results:
        if show_all or result.state != "passed":
            echo(str(result))
    told = ", ".join(f"{report.count(state)} {word}" for state, word in _STATES if report.count(state))
    echo(f"{report.plugin}: {told}")
    return 1 if report.failed else 0


@command.command("new")
@click.argument("name")
@click.option("--method", "kind", flag_value="method", help="A compression method in PyTorch.")
@click.option("--target", "kind", flag_value="target", help="A runtime.")
@click.option("--workload", "kind", flag_value="workload", help="A model with its data.")
@click.option("--exporter", "kind", flag_value="exporter", help="A way from one model format to another.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="Folder to make it in; this one by default."
)
@click.pass_obj
def new(app: App, name: str, kind: str | None, out: Path) -> None:
    """Write a complete plugin distribution NAME that installs, runs and passes the conformance kit as it is."""
    from harness.errors import PlanError
    from harness.scaffold import write

    if kind is None:
        raise PlanError("say what the plugin offers", hint="one of --method, --target, --workload, --exporter")
    taken = getattr(app.registry(), f"{kind}s").get(name.removeprefix("harness-"))
    if taken is not None:
        raise PlanError(f"{taken.distribution} offers a {kind} {name!r} already", hint="give it another name")
    made = write(name, kind, out)
    echo(f"{made.folder}")
    click.echo(f"next: pip install -e '{made.folder}' && harness plugins check {made.entry} && {made.bench}", err=True)


_STATES: tuple[tuple[State, str], ...] = (
    ("passed", "passed"), ("failed", "failed"), ("gap", "known gaps"), ("skipped", "skipped"),
)  # fmt: skip


def _row(info: PluginInfo) -> tuple[str, ...]:
    offers = "; ".join(_offered(kind, names) for kind, names in sorted(info.offers.items()))
    told = " - ".join(text for text in (offers, info.message) if text)
    return info.name, info.state, f"{info.distribution} {info.version}", info.module, told or "nothing"


def _offered(kind: str, names: tuple[str, ...]) -> str:
    return f"{kind}s {', '.join(names)}" if len(names) <= MOST_NAMES else f"{len(names)} {kind}s"


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
