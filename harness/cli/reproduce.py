"""``harness reproduce``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS, json_option, parse_pythons, print_facts, print_json, print_table, python_option
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.bundle import Opened, Reproduction
    from harness.cli.main import App


@click.command("reproduce")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="BUNDLE")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Gets the new run.")
@click.option("--run", "done", type=click.Path(path_type=Path), metavar="RUN", help="Judge a run; measure nothing.")
@click.option("--rebuild", is_flag=True, help="Build the artifacts also where the bundle holds them.")
@click.option("--verify-only", is_flag=True, help="Check the evidence and stop; measure nothing.")
@python_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.md", help="As Markdown.")
@json_option
@click.pass_obj
def command(
    app: App, *, bundle: Path, out: Path, done: Path | None, rebuild: bool, verify_only: bool, pythons: tuple[str, ...],
    output: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Measure a bundle's cell again, and say if it holds.

    Exit code 0: reproduced; 1: not reproduced, or undecided; 4: the bundle is damaged.
    """
    from harness.bundle import markdown, open_bundle
    from harness.codec import write_whole

    if done is not None and (rebuild or verify_only or pythons):
        raise PlanError("--run judges a run that was made before", hint="leave the other options out")
    with tempfile.TemporaryDirectory(prefix="harness-reproduce-") as folder:
        opened = open_bundle(bundle, Path(folder))
        if verify_only:
            return _verified(opened, as_json=as_json)
        found = _judged(app, opened, out, done, parse_pythons(pythons), rebuild=rebuild)
    if output is not None:
        write_whole(output, markdown(found).encode())
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0 if found.verdict == "reproduced" else 1


def _judged(
    app: App, opened: Opened, out: Path, done: Path | None, python: dict[str, str], *, rebuild: bool
) -> Reproduction:
    from harness.bundle.reproduce import judge_run, reproduce
    from harness.cli.common import find_run
    from harness.cli.progress import Timed, make_ui
    from harness.store import load_run

    if done is not None:
        return judge_run(opened, load_run(find_run(done)), app.registry())
    ui = Timed(make_ui())
    try:
        return reproduce(opened, registry=app.registry(), out=out, ui=ui, python=python, rebuild=rebuild)
    finally:
        ui.close()


def _verified(opened: Opened, *, as_json: bool) -> int:
    from harness.bundle import title
    from harness.leaderboard.escape import visible

    if as_json:
        print_json({"ok": True, "bundle": opened.path.name, "info": opened.info})
        return 0
    info = opened.info
    print_facts((name, visible(value)) for name, value in (
        ("cell", f"{info.cell_id}  {title(info.labels)}"),
        ("machine", info.unit),
        ("artifact", info.artifact_sha256),
        ("artifacts", "packed" if info.with_artifacts else "not packed"),
        ("command", info.command),
        ("breaks", "; ".join(info.breaks)),
    ))  # fmt: skip
    held = "its figures follow from their samples"
    whole = f"the files are whole and {held}; demands are broken as told above" if info.breaks else f"whole, and {held}"
    echo(f"{whole}; where the samples come from, only the sender knows")
    return 0


def _show(found: Reproduction) -> None:
    from harness.bundle import render, title
    from harness.leaderboard.escape import visible

    if found.checks:
        print_table(render.HEAD, [[visible(text) for text in row] for row in render.rows(found)])
    for note in found.notes:
        echo(visible(note))
    echo(visible(f"{title(found.labels)}: {render.headline(found)}"))
    click.echo(f"results: {found.run}", err=True)
