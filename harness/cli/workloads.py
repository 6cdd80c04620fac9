"""``harness workloads``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.answer import echo
from harness.cli.common import json_option, note_contested, print_facts, print_json, print_params, print_table
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.specs import Offer, WorkloadSpec

T = TypeVar("T")


@click.command("workloads")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def command(app: App, *, name: str | None, as_json: bool) -> None:
    """List the workloads: models with their data."""
    registry = app.registry()
    note_contested(registry, "workload")
    if name is not None:
        offer = registry.find("workload", name)
        if as_json:
            print_json(data(offer))
        else:
            show(offer)
    elif as_json:
        print_json([data(offer) for offer in registry.workloads.values()])
    else:
        print_table(("workload", "default", "modality", "metric", "summary"), map(_row, registry.workloads.values()))


def _row(offer: Offer[WorkloadSpec[Any]]) -> tuple[str, ...]:
    spec = offer.spec
    return spec.name, "yes" if spec.default else "", spec.modality, _metric(spec), spec.summary


def _metric(spec: WorkloadSpec[Any]) -> str:
    labelled = _ask(spec, spec.labelled) if callable(spec.labelled) else spec.labelled
    task = _ask(spec, spec.task) if callable(spec.task) else spec.task
    if task == "none" or labelled is False:
        return "none: agreement with the anchor"
    direction = "higher is better" if spec.higher_is_better else "lower is better"
    return f"{spec.metric} ({', '.join(text for text in (spec.unit, direction) if text)})"


def _ask(spec: WorkloadSpec[Any], function: Callable[[Any], T]) -> T | None:
    """Ask at the default parameters; a workload that is nothing without a file has no answer."""
    try:
        return function(spec.params())
    except HarnessError:
        return None


def data(offer: Offer[WorkloadSpec[Any]]) -> dict[str, Any]:
    """Return a workload as plain data; what depends on a file that is not named is null."""
    from harness.params import describe

    spec = offer.spec
    ask = {key: getattr(spec, key) for key in ("task", "outputs", "produces", "labelled")}
    plain = ("name", "modality", "summary", "metric", "unit", "higher_is_better", "interval", "default")
    return {
        **{key: getattr(spec, key) for key in plain},
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "inputs": _ask(spec, spec.inputs),
        **{key: _ask(spec, value) if callable(value) else value for key, value in ask.items()},
        "flags": list(spec.flags),
        "params": list(describe(spec.params)),
    }


def show(offer: Offer[WorkloadSpec[Any]]) -> None:
    """Print one workload."""
    from harness.params import describe

    facts, spec = data(offer), offer.spec
    inputs = facts["inputs"] or {}
    shapes = [f"{name} {item.dtype}[{', '.join(str(n or 'n') for n in item.shape)}]" for name, item in inputs.items()]
    echo(f"{spec.name}: {spec.summary}\n")
    print_facts([
        ("modality", spec.modality),
        ("plugin", f"{offer.plugin} ({offer.distribution} {offer.version})"),
        ("inputs", ", ".join(shapes)),
        ("outputs", ", ".join(facts["outputs"] or ())),
        ("metric", _metric(spec)),
        ("model format", facts["produces"] or ""),
        ("flags", ", ".join(spec.flags)),
        ("measured by default", "yes" if spec.default else "no"),
    ])  # fmt: skip
    print_params(describe(spec.params))
