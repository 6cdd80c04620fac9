"""``harness tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import (
    json_option,
    parse_pythons,
    parse_size,
    print_json,
    print_table,
    python_option,
    split_words,
)
from harness.errors import PlanError
from harness.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.main import App
    from harness.tune import Trial, TuneRequest, TuneResult

_PATH = click.Path(path_type=Path)
_UNKNOWN = "?"


@click.command("tune", short_help="Search a pipeline's parameters for quality, latency and size.")
@click.argument("pipeline")
@click.option("--target", required=True, metavar="T", help="The target that trials are measured on.")
@click.option("--workload", metavar="W", help="Default: the default one.")
@click.option(
    "--vary", multiple=True, metavar="NAME=RANGE",
    help="Such as ratio=0.2..0.7, lr=1e-4..1e-2:log or scope=local,global; repeatable. "
    "Default: every parameter whose declared range has both ends.",
)  # fmt: skip
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all, resumed ones too.")
@click.option(
    "--objectives", multiple=True, metavar="LIST", default=("quality,latency,size",), show_default=True,
    help="Also: stored; separated by commas or spaces, repeatable.",
)  # fmt: skip
@click.option(
    "--winners", type=click.IntRange(min=1), default=7, show_default=True, help="Pipelines that are measured again."
)
@click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="quick", show_default=True, help="Of the winners."
)
@click.option("--threads", metavar="N", default="1", show_default=True, help="Thread count, or all.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Batch size.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random generator.")
@python_option
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True, metavar="SECONDS",
    help="Per step and launch.",
)  # fmt: skip
@click.option("--memory-limit", metavar="SIZE", help="Per build step and launch, such as 4GiB.")
@click.option("--search-only", is_flag=True, help="Do not measure the winners again.")
@click.option("--out", type=_PATH, default=Path("results"), show_default=True, help="Root of the results tree.")
@json_option
@click.pass_obj
def command(app: App, /, **options: Any) -> int:
    """Search a pipeline's parameters for quality, latency and size.

    Trials are judged on the selection split and timed beside the baseline. The best ones are written as a bench.toml
    and measured again by a normal run, on the test split. The same command goes on with an interrupted search.
    """
    from harness.cli.progress import Timed, make_ui
    from harness.tune import tune

    ui = Timed(make_ui())
    try:
        registry = app.registry()
        request = _request(options, registry)
        result = tune(request, registry=registry, out=options["out"], confirm=not options["search_only"], ui=ui)
    finally:
        ui.close()
    if options["as_json"]:
        print_json(_data(result))
    else:
        _show(result)
    click.echo(ui.summary(), err=True)
    if result.run is not None:
        return result.run.exit_code
    return 0 if result.winners else 1


def _request(options: dict[str, Any], registry: Any) -> TuneRequest:
    import math

    from harness.tune import TuneRequest

    if not math.isfinite(options["timeout"]):
        raise PlanError(f"--timeout takes seconds; got {options['timeout']}", hint="such as --timeout 600")
    defaults = [name for name, offer in registry.workloads.items() if offer.spec.default]
    workload = options["workload"] or next(iter(defaults), None)
    if workload is None:
        raise PlanError("no workload is named and no installed one is a default", hint="name one: --workload W")
    return TuneRequest(
        workload=workload,
        pipeline=options["pipeline"],
        target=options["target"],
        vary=tuple(options["vary"]),
        objectives=split_words(options["objectives"], "--objectives"),
        trials=options["trials"],
        winners=options["winners"],
        profile=options["profile"],
        threads=options["threads"],
        batch=options["batch"],
        seed=options["seed"],
        python=parse_pythons(options["pythons"]),
        timeout_s=options["timeout"],
        memory_limit_bytes=parse_size(options["memory_limit"], "--memory-limit"),
    )


def _data(result: TuneResult) -> dict[str, Any]:
    import dataclasses

    def plain(trial: Trial) -> dict[str, Any]:
        return {
            field.name: getattr(trial, field.name) for field in dataclasses.fields(trial) if field.name != "sets"
        }  # fmt: skip

    return {
        "folder": result.folder,
        "request": result.study.request,
        "axes": result.study.axes,
        "higher_is_better": result.study.higher_is_better,
        "trials": [plain(trial) for trial in result.trials],
        "front": [trial.pipeline for trial in result.front],
        "winners": [trial.pipeline for trial in result.winners],
        "spec": result.spec,
        "run": result.run.folder if result.run else None,
    }


def _show(result: TuneResult) -> None:
    failed = [trial for trial in result.trials if trial.status != "ok"]
    okay = len(result.trials) - len(failed)
    echo(f"{okay} trials measured on the selection split, {len(failed)} without figures")
    for reason in dict.fromkeys(f"  {trial.status}: {trial.reason}" for trial in failed):
        echo(reason)
    if not result.front:
        echo("there is no front: no trial went well")
        return
    print_table(("Pareto set", *_columns(result), "measured again"), _rows(result.front, result))
    echo("latency is t(pipeline) / t(baseline), paired; indicative: two launch-sets on the selection split")
    echo(f"as bench.toml: {result.spec}")
    if result.run is not None:
        echo("\nthe winners, measured again on the test split:\n")
        _confirmed(result, result.run.folder)


def _columns(result: TuneResult) -> tuple[str, ...]:
    return f"{result.study.metric} (selection)", "latency", "p50 µs", "size KiB"


def _rows(trials: Sequence[Trial], result: TuneResult) -> list[tuple[str, ...]]:
    return [
        (
            trial.pipeline, _UNKNOWN if trial.quality is None else f"{trial.quality:.4g}",
            _UNKNOWN if trial.ratio is None else f"{trial.ratio:.3f}",
            _UNKNOWN if trial.p50_ns is None else f"{trial.p50_ns / 1e3:.4g}",
            _UNKNOWN if trial.artifact_bytes is None else f"{trial.artifact_bytes / 1024:.4g}",
            "yes" if trial in result.winners else "",
        )
        for trial in trials
    ]  # fmt: skip


def _confirmed(result: TuneResult, folder: Path) -> None:
    """Print the board of the winners, and beside each what the search had promised."""
    from harness.cli.leaderboard import print_board
    from harness.store import load_run

    print_board([folder], "terminal")
    records = {record.labels["method"]: record for record in load_run(folder).records}
    rows: list[tuple[str, ...]] = []
    for trial in result.winners:
        record = records.get(trial.pipeline)
        value = record.quality.value.point if record and record.quality and record.quality.value else None
        ratio = record.latency.ratio.point if record and record.latency and record.latency.ratio else None
        rows.append(
            (trial.pipeline, *(_pair(*both) for both in ((trial.quality, value), (trial.ratio, ratio))))
        )  # fmt: skip
    print_table(("winner", f"{result.study.metric}: search, then fresh", "latency: search, then fresh"), rows)


def _pair(before: float | None, after: float | None) -> str:
    return ", ".join(_UNKNOWN if value is None else f"{value:.4g}" for value in (before, after))
