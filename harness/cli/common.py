"""What several commands share: where runs lie, and how things are printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.answer import echo, stream
from harness.errors import PlanError, PluginError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.params import ParamInfo
    from harness.plugins import Registry

F = TypeVar("F", bound=Callable[..., Any])
RESULTS = Path("results")
FIRST_WIDTH = 40  # characters of a first column that is kept on one line
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")(function)


def said_options(function: F) -> F:
    """Add what a user says of ``--model`` where its file does not tell."""
    for option in (
        click.option("--classes-axis", type=int, help="Axis of the classes in the model's first output, items first."),
        click.option(
            "--task", type=click.Choice(["classification", "regression", "none"]),
            help="What the labels and the model's first output are; default: classification where there are labels.",
        ),
        click.option(
            "--state", "states", multiple=True, metavar="NAME=OUTPUT",
            help="Input that an output is fed back into; repeatable.",
        ),
        click.option(
            "--axis", "axes", multiple=True, metavar="NAME=1",
            help="Item axis of an input of the model, or none; repeatable.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def python_option(function: F) -> F:
    """Add ``--python TARGET=PATH``."""
    return click.option(
        "--python", "pythons", multiple=True, metavar="TARGET=PATH",
        help="Interpreter in which a target lowers and runs; repeatable.",
    )(function)  # fmt: skip


def parse_pythons(texts: Iterable[str]) -> dict[str, str]:
    """Read ``TARGET=PATH`` pairs.

    Raises:
        PlanError: One is no pair, or its interpreter does not exist.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise PlanError(f"--python takes TARGET=PATH; got {text!r}", hint="such as tflite=/opt/tflite/bin/python")
        if not Path(path).expanduser().is_file():
            raise PlanError(f"the interpreter of {name!r} does not exist: {path}")
        # Not resolved: a virtual environment's python is a link, and following it leaves the environment.
        found[name] = str(Path(path).expanduser().absolute())
    return found


def split_words(texts: Iterable[str], option: str) -> tuple[str, ...]:
    """Split the values of a repeatable option at commas and spaces, in the order given.

    Raises:
        PlanError: A value holds no word: dropping it would leave the default, which was not asked for.
    """
    found: list[str] = []
    for text in texts:
        words = [word for word in re.split(r"[,\s]+", text) if word]
        if not words:
            raise PlanError(f"{option} takes a list of values; got {text!r}")
        found += words
    return tuple(found)


def print_json(data: object) -> None:
    """Print a value as JSON to stdout, dataclasses and paths included."""
    from harness.codec import dumps

    echo(dumps(data, indent=2))


def console(*, stderr: bool = False) -> Console:
    """Return a console; piped output is wide enough that nothing is cut."""
    from rich.console import Console

    where = sys.stderr if stderr else stream()
    return Console(file=where, width=None if where.isatty() else 160, highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print rows to stdout; brackets in them are text, not markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    lines = list(rows)
    short = max((len(str(row[0])) for row in lines), default=0) <= FIRST_WIDTH  # a long name would starve the rest
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0 and short)
    for row in lines:
        table.add_row(*(Text(str(value)) for value in row))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print name-value lines to stdout; empty values are left out."""
    shown = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _value in shown), default=0)
    for name, value in shown:
        echo(f"{name:<{width}}  {value}")


def default_text(value: object) -> str:
    """Write a default as a user would give it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def note_contested(registry: Registry, kind: str) -> None:
    """Say on stderr which names a listing lacks, as several plugins offer them."""
    for name in registry.contested.get(kind, ()):
        try:
            registry.find(kind, name)
        except PluginError as error:
            click.echo(f"not listed: {error.message}; {error.hint}", err=True)


def print_params(params: Sequence[ParamInfo]) -> None:
    """Print the parameters of an offer."""
    if not params:
        echo("\nno parameters")
        return
    rows = [(item.name, item.type, default_text(item.default), item.range, item.help) for item in params]
    print_table(("parameter", "type", "default", "range", "help"), rows)


def install_hint(extra: str) -> str:
    """Return the command that installs an extra of this distribution."""
    return f"pip install 'compression-harness[{extra}]'" if extra else ""


def find_run(given: Path | None, root: Path = RESULTS) -> Path:
    """Return the run folder that is meant: the one given, else the newest under it or under ``./results``.

    Raises:
        PlanError: There is no run there.
    """
    from harness.store import find_runs

    where = root if given is None else given
    found = find_runs(where) if where.exists() else ()
    if not found:
        raise PlanError(f"there is no run at {where}", hint="'harness bench' makes one; a run is results/<host>/<run>")
    return found[-1]


def parse_size(text: str | None, option: str) -> int | None:
    """Read a size such as 500M, 4GiB or a plain number of bytes.

    Raises:
        PlanError: It is no size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    if match is None or float(match.group(1)) <= 0:
        raise PlanError(f"{option} takes a size such as 500M or 4GiB; got {text!r}")
    return int(float(match.group(1)) * _UNITS[match.group(2) or ""])
