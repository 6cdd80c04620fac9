"""``harness bench``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.answer import echo
from harness.cli.common import parse_pythons, parse_size, python_option, said_options, split_words
from harness.errors import BadModel, PlanError
from harness.profiles import PROFILES

if TYPE_CHECKING:
    from harness.bench import RunResult
    from harness.cli.main import App
    from harness.cli.progress import Timed
    from harness.plan import Plan, Request
    from harness.plugins import Registry

F = TypeVar("F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SCENARIOS = ("single_stream", "offline", "server", "sustained")
FORMATS = ("terminal", "md", "csv", "json")


def _items(name: str, what: str) -> Callable[[F], F]:
    return click.option(name, multiple=True, metavar="LIST", help=f"{what}; separated by commas or spaces, repeatable.")


@click.command("bench", short_help="Compress, build and measure: workloads x methods x targets.")
@_items("--workloads", "Workloads; default: the default one")
@_items("--methods", "Pipelines such as int8 or channel-pruning:ratio=0.3,0.5+int8; default: those of every method")
@_items("--targets", "Targets, or all; default: all")
@click.option("--profile", type=click.Choice(list(PROFILES)), help="How much is measured; default: quick.")
@_items("--threads", "Thread counts, or all, such as 1,all; default: 1")
@_items("--scenario", "Also single_stream, offline, server or sustained, driven by MLCommons LoadGen")
@click.option("--energy", is_flag=True, default=None, help="Also joules per inference: RAPL, NVML or --meter.")
@click.option("--meter", type=_FILE, help="A power meter's log, written meanwhile: CSV with timestamp and watts.")
@_items("--batch", "Batch sizes, such as 1,8; default: 1")
@click.option(
    "--model", "models", multiple=True, type=_FILE, help="Your own model: a .onnx, .pt2 or .tflite file; repeatable."
)
@click.option("--data", type=_FILE, help="A .npz for each --model: inputs by name, optional y and calib_*.")
@said_options
@click.option(
    "--workload",
    "factories",
    multiple=True,
    metavar="FILE_OR_MODULE:FACTORY",
    help="Your own PyTorch model and data; repeatable.",
)
@click.option("-c", "--config", type=_FILE, help="A bench.toml; options given beside it win.")
@click.option("--from", "pack", type=_FILE, help="Measure the artifacts of a pack instead of building.")
@click.option("--out", type=_PATH, default=Path("results"), show_default=True, help="Root of the results tree.")
@click.option("--dry-run", is_flag=True, help="Print the plan with predicted minutes, and stop.")
@click.option("--strict", is_flag=True, default=None, help="Also fail what did not run as its label says.")
@click.option(
    "--strict-share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="The same where less of the MACs (or weights) did than this; default: 0.9.",
)
@click.option(
    "--stages", is_flag=True, default=None, help="Measure each prefix of a pipeline too: what every step contributes."
)
@click.option(
    "--robustness", is_flag=True, default=None, help="Also the metric on corrupted copies of the test images."
)
@click.option(
    "--layers", is_flag=True, default=None, help="Also how far each operator's output is from the anchor's, in dB."
)
@click.option("--seed", type=int, help="Of every random generator; default: 0.")
@python_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Per step and launch; default: 600.",
)
@click.option("--memory-limit", metavar="SIZE", help="Per build step and launch, such as 4GiB.")
@click.option("--fresh", is_flag=True, help="Start anew where an unfinished run could be resumed.")
@click.option(
    "--format", "view", type=click.Choice(FORMATS), default="terminal", show_default=True, help="Of the final board."
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the plan as JSON.")
@click.pass_obj
def command(app: App, /, **options: Any) -> int:
    """Compress, build and measure: workloads x methods x targets.

    Everything has a default: 'harness bench' alone finds the targets, trains the default workload, runs the
    default methods and ends with a leaderboard.
    """
    from harness.cli.planview import print_plan
    from harness.cli.progress import Timed, make_ui
    from harness.plan import Plan

    if options["as_json"] and not options["dry_run"]:
        raise PlanError("--json prints the plan of a --dry-run", hint="--format json prints the board")
    ui = Timed(make_ui())
    try:
        result = _work(app, options, ui)
    except BadModel as error:
        raise BadModel(error.message, hint=_look_closer(error.hint, options)) from error
    finally:
        ui.close()
    if isinstance(result, Plan):
        print_plan(result, as_json=options["as_json"])
        return 0
    return _finish(result, options["view"], ui.summary())


def _work(app: App, options: dict[str, Any], ui: Timed) -> Plan | RunResult:
    ui.note("loading plugins")
    registry = app.registry()
    for problem in registry.problems:
        ui.note(f"plugin {problem.plugin} ({problem.distribution}) is not fully used: {problem.message}")
    request = build_request(options, registry)
    return _plan(request, registry, options, ui) if options["dry_run"] else _run(request, registry, options, ui)


def _look_closer(hint: str | None, options: dict[str, Any]) -> str | None:
    """Return the hint of a refusal, and the command that shows the model that it is about, where one is given."""
    models, factories = options["models"], options["factories"]
    if len(models) + len(factories) != 1 or (models and not models[0].is_file()):
        return hint
    given = shlex.quote(str(models[0])) if models else f"--workload {shlex.quote(factories[0])}"
    return "; ".join(text for text in (hint, f"see 'harness inspect {given}'") if text)


def _plan(request: Request, registry: Registry, options: dict[str, Any], ui: Timed) -> Plan:
    from harness.bench.owndata import read_own_data
    from harness.bench.run import prepare

    ui.note("probing targets")
    plan, _states = prepare(request, registry)
    if options["pack"] is None:
        plan = read_own_data(plan, registry, ui.note)
    return plan


def _run(request: Request, registry: Registry, options: dict[str, Any], ui: Timed) -> RunResult:
    from harness.bench import run

    return run(request, registry=registry, out=options["out"], pack=options["pack"], fresh=options["fresh"], ui=ui)


def _finite(seconds: float | None) -> float | None:
    if seconds is not None and not math.isfinite(seconds):
        raise PlanError(f"--timeout takes seconds; got {seconds}", hint="give a number, such as --timeout 600")
    return seconds


def _finish(result: RunResult, view: str, times: str) -> int:
    from harness.cli.leaderboard import print_board

    print_board([result.folder], view)
    _print_scenarios(result.folder, view)
    click.echo(times, err=True)
    click.echo(_work_done(result.folder), err=True)
    click.echo(f"results: {result.folder}", err=True)
    return result.exit_code


def _print_scenarios(folder: Path, view: str) -> None:
    """Print what the load generator measured; other formats than the terminal's hold it in the records."""
    from harness.bench.scenarios import summaries
    from harness.store import load_run

    for text in summaries(load_run(folder).records):
        echo(text) if view == "terminal" else click.echo(text, err=True)


def _work_done(folder: Path) -> str:
    """Say what the stages of the cells took; a build that was cached counts what it took when it was built."""
    from harness.cli.progress import clock
    from harness.leaderboard import where_time_went
    from harness.store import load_run

    went = where_time_went(load_run(folder))
    parts = ", ".join(f"{stage} {clock(float(s))}" for stage, s in zip(went["stage"], went["seconds"], strict=True))
    return f"work: {parts or 'none'} (a cached build with the time it took when it was built)"


def build_request(options: dict[str, Any], registry: Registry) -> Request:
    """Make a request of the options, on top of ``-c bench.toml`` or a pack's own request.

    Raises:
        PlanError: An option has no meaning here, or does not parse.
    """
    import dataclasses

    base = _base(options)
    targets = ("all", *registry.targets)
    changes: dict[str, Any] = {
        "workloads": (*_split(options["workloads"], registry.workloads), *_own(options)),
        "methods": _split(options["methods"], registry.methods),
        "targets": _split(options["targets"], targets),
        "profile": options["profile"],
        "threads": split_words(options["threads"], "--threads"),
        "batches": _counts(options["batch"]),
        "scenarios": _scenarios(options["scenario"]),
        "energy": options.get("energy") or (True if options.get("meter") else None),
        "meter": str(options["meter"].absolute()) if options.get("meter") else None,
        "seed": options["seed"],
        "python": parse_pythons(options["pythons"]),
        "strict": True if options.get("strict_share") is not None else options["strict"],
        "strict_share": options.get("strict_share"),
        "stages": options.get("stages"),
        "robustness": options.get("robustness"),
        "layers": options.get("layers"),
        "timeout_s": _finite(options["timeout"]),
        "memory_limit_bytes": parse_size(options["memory_limit"], "--memory-limit"),
    }
    return dataclasses.replace(base, **{key: value for key, value in changes.items() if value not in (None, (), {})})


def _base(options: dict[str, Any]) -> Request:
    from harness.config import read_config
    from harness.plan import Request

    if options["config"] is not None:
        return read_config(options["config"])
    if options["pack"] is not None:
        from harness.build import pack_request

        request: Request = pack_request(options["pack"])
        return request
    return Request()


def _split(texts: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    from harness.grammar import split_list

    return tuple(item for text in texts for item in split_list(text, known))


def _own(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the workloads that --model and --workload stand for."""
    from harness.grammar import format_step
    from harness.types import Step

    models, data, task = options["models"], options["data"], options.get("task")
    said = {
        "axes": ";".join(options.get("axes") or ()), "states": ";".join(options.get("states") or ()),
        "task": task if task != "regression" else None, "classes_axis": options.get("classes_axis"),
    }  # fmt: skip
    given = {name: value for name, value in said.items() if value not in (None, "")}
    if data is not None and not models:
        raise PlanError("--data says what --model runs on; no --model is given")
    if (given or task) and not models:
        raise PlanError("--axis, --state, --task and --classes-axis say what --model is; no --model is given")
    own = [Step("factory", {"target": text}) for text in options["factories"]]
    for model in models:
        if model.suffix not in {".onnx", ".pt2", ".tflite"}:
            raise PlanError(f"--model takes a .onnx, .pt2 or .tflite file; got {model.name!r}")
        files = {"path": str(model.absolute())} | ({"data": str(data.absolute())} if data else {})
        own.append(Step("file-regression" if task == "regression" else "file", files | given))
    return tuple(format_step(step) for step in own)


def _scenarios(texts: Iterable[str]) -> tuple[str, ...]:
    from harness.params import suggest

    names = tuple(dict.fromkeys(split_words(texts, "--scenario")))
    for name in names:
        if name not in SCENARIOS:
            raise PlanError(f"no scenario is called {name!r}", hint=suggest(name, SCENARIOS, "scenario"))
    return names


def _counts(texts: Iterable[str]) -> tuple[int, ...]:
    words = split_words(texts, "--batch")
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise PlanError(f"--batch takes counts such as 1,8; got {wrong!r}")
    return tuple(int(word) for word in words)
