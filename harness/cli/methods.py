"""``harness methods``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import json_option, note_contested, print_facts, print_json, print_params, print_table
from harness.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cli.main import App
    from harness.plugins import Registry
    from harness.specs import MethodSpec, Offer


@click.command("methods")
@click.argument("name", required=False)
@click.option(
    "--table", "runs", multiple=True, type=click.Path(path_type=Path, exists=True), metavar="RUN",
    help="Print technique x target as Markdown, with what these runs, or all below a folder, measured; repeatable.",
)  # fmt: skip
@json_option
@click.pass_obj
def command(app: App, *, name: str | None, runs: tuple[Path, ...], as_json: bool) -> None:
    """List the compression methods and their parameters."""
    registry = app.registry()
    note_contested(registry, "method")
    if runs:
        _table(registry, runs, name=name, as_json=as_json)
    elif name is not None:
        offer = registry.find("method", name)
        if as_json:
            print_json(data(offer))
        else:
            show(offer)
    elif as_json:
        print_json([data(offer) for offer in registry.methods.values()])
    else:
        rows = [
            (offer.spec.name, offer.spec.family, _params(offer), offer.spec.summary)
            for offer in registry.methods.values()
        ]
        print_table(("method", "family", "parameters", "summary"), rows)


def _table(registry: Registry, runs: tuple[Path, ...], *, name: str | None, as_json: bool) -> None:
    from harness.leaderboard import table, technique_table
    from harness.store import find_runs, load_run

    if name is not None or as_json:
        raise PlanError("--table prints one page of all methods", hint="leave out the name and --json")
    found = [path for folder in runs for path in find_runs(folder)]
    if not found:
        raise PlanError(
            f"there is no run at {runs[0]}", hint="'harness bench' makes one; a run is results/<host>/<run>"
        )
    board = table([load_run(path) for path in found])
    specs = {method: offer.spec for method, offer in registry.methods.items()}
    echo(technique_table(board, specs), nl=False)


def _params(offer: Offer[MethodSpec[Any]]) -> str:
    from harness.cli.common import default_text
    from harness.params import describe

    return " ".join(f"{item.name}={default_text(item.default)}" for item in describe(offer.spec.params))


def _precision(spec: MethodSpec[Any]) -> str | None:
    wanted = _asked(spec, spec.wants) if spec.wants else None
    return wanted.name if wanted is not None else None


def _listed(spec: MethodSpec[Any], field: str) -> list[str]:
    value: frozenset[str] | Callable[[Any], frozenset[str]] = getattr(spec, field)
    return sorted(value if isinstance(value, frozenset) else _asked(spec, value) or ())


def _asked(spec: MethodSpec[Any], function: Callable[[Any], Any]) -> Any:
    """Return what a method says of its default parameters; ``None`` where its own function fails."""
    try:
        return function(spec.params())
    except Exception:  # noqa: BLE001  it is told where the method is used; a listing lists the others all the same
        return None


def data(offer: Offer[MethodSpec[Any]]) -> dict[str, Any]:
    """Return a method as plain data."""
    from harness.params import describe

    spec = offer.spec
    sets = ("consumes", "needs", "reads", "after", "before", "conflicts")
    return {
        "name": spec.name,
        "family": spec.family,
        "summary": spec.summary,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        **{key: _listed(spec, key) for key in sets},
        "produces": spec.produces,
        "techniques": list(spec.techniques),
        "precision": _precision(spec),
        "defaults": list(spec.defaults) if spec.defaults is not None else [spec.name],
        "params": list(describe(spec.params)),
    }


def show(offer: Offer[MethodSpec[Any]]) -> None:
    """Print one method."""
    from harness.params import describe

    facts = data(offer)
    words = {key: ", ".join(value) for key, value in facts.items() if isinstance(value, list) and key != "params"}
    echo(f"{offer.spec.name}: {offer.spec.summary}\n")
    print_facts([
        ("family", offer.spec.family),
        ("techniques", words["techniques"]),
        ("plugin", f"{offer.plugin} ({offer.distribution} {offer.version})"),
        ("takes", words["consumes"] or "any format"),
        ("leaves", offer.spec.produces or "the format it took"),
        ("asks a target for", facts["precision"] or ""),
        ("needs", words["needs"]),
        ("adapts to", words["reads"]),
        ("comes after", words["after"]),
        ("comes before", words["before"]),
        ("excludes", words["conflicts"]),
        ("measured by default as", words["defaults"] or "not by default"),
    ])  # fmt: skip
    print_params(describe(offer.spec.params))
