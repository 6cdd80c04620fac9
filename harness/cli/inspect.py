"""``harness inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import json_option, print_json, python_option, said_options
from harness.errors import BadModel, PlanError

if TYPE_CHECKING:
    from harness.build.look import Look
    from harness.cli.main import App
    from harness.plan import Request
    from harness.plugins import Registry

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SHARED = ("data", "targets", "methods", "pythons", "axes", "states", "task", "classes_axis")  # options of 'bench'
# What 'bench' asks beside: nothing of it is asked here.
BENCH: dict[str, Any] = {
    "config": None, "pack": None, "workloads": (), "profile": None, "threads": (), "batch": (), "scenario": (),
    "seed": None, "strict": None, "timeout": None, "memory_limit": None,
}  # fmt: skip


@click.command("inspect", short_help="Show what a model holds and what each target will do with it.")
@click.argument("model", required=False, type=_FILE)
@click.option("--data", type=_FILE, help="A .npz as for 'harness bench': free dimensions take their sizes from it.")
@said_options
@click.option(
    "--workload", "factory", metavar="FILE_OR_MODULE:FACTORY", help="Your own PyTorch model, in place of a file."
)
@click.option("--targets", multiple=True, metavar="LIST", help="Targets that are asked about it; default: all.")
@click.option("--methods", multiple=True, metavar="LIST", help="Pipelines; default: those of every method.")
@json_option
@python_option
@click.pass_obj
def command(app: App, /, **options: Any) -> int:
    """Show what a model holds, and what each target will do with it, before anything is built.

    MODEL is a .onnx, .pt2 or .tflite file.
    """
    from harness.cli import inspected

    look, wrong = look_at(app, options)
    if options["as_json"]:
        print_json(inspected.data(look, wrong))
    else:
        given = options["factory"] is not None or (options["data"] is not None and not wrong)
        inspected.show(look, str(options["model"] or options["factory"]), wrong, given_data=given)
    return 0


def look_at(app: App, options: dict[str, Any]) -> tuple[Look, str]:
    """Plan the model's cells and look into it; what is wrong with its data is told beside, not instead."""
    from harness.bench.owndata import read_own_data
    from harness.bench.run import prepare
    from harness.build.look import look_into

    registry = app.registry()
    request = _request(options, registry)
    plan, _states = prepare(request, registry)
    wrong = ""
    try:
        plan = read_own_data(plan, registry, lambda _text: None)
    except BadModel as error:
        wrong = str(error) if options["data"] else ""
        plan, _states = prepare(_request({**options, "data": None}, registry), registry)
    return look_into(plan, registry, file=options["model"]), wrong


def _request(options: dict[str, Any], registry: Registry) -> Request:
    import dataclasses

    from harness.cli.bench import build_request
    from harness.grammar import format_step
    from harness.types import Step

    model, factory = options["model"], options["factory"]
    if (model is None) == (factory is None):
        raise PlanError("inspect takes one MODEL file, or --workload", hint="such as: harness inspect my.onnx")
    kept = {name: options[name] for name in SHARED}
    kept["methods"] = kept["methods"] or (",".join(pipelines(registry)),)
    request = build_request(BENCH | kept | {"models": (model,) if model else (), "factories": ()}, registry)
    if factory is not None:  # as it is made: training it would take as long as building
        step = Step("factory", {"target": factory, "epochs": 0})
        request = dataclasses.replace(request, workloads=(format_step(step),))
    return request


def pipelines(registry: Registry) -> tuple[str, ...]:
    """Return what a run without methods measures, and each other method that asks a target for a precision."""
    from harness.plan.resolve import default_pipelines

    asking = (name for name, offer in registry.methods.items() if offer.spec.wants is not None)
    return tuple(dict.fromkeys((*default_pipelines(registry), *asking)))
