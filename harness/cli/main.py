"""The command line's entry: a static table of commands, so that ``--help`` loads no command."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import click

from harness import __version__
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.plugins import Registry

COMMANDS: Mapping[str, tuple[str, str]] = {
    "bench": ("harness.cli.bench", "Compress, build and measure: workloads x methods x targets."),
    "inspect": ("harness.cli.inspect", "Show what a model holds and what each target will do with it."),
    "tune": ("harness.cli.tune", "Search a pipeline's parameters for quality, latency and size."),
    "leaderboard": ("harness.cli.leaderboard", "Show the leaderboard of one or more runs."),
    "placements": ("harness.cli.placements", "Show what ran where, operator by operator, in a cell of a run."),
    "compare": ("harness.cli.compare", "Say whether B is worse than A, cell by cell, with intervals."),
    "report": ("harness.cli.report", "Write one self-contained HTML file about one or more runs."),
    "history": ("harness.cli.history", "Show a cell over many runs, and where it changed."),
    "export": ("harness.cli.export", "Write a run for other tools: spreadsheets, pytest-benchmark, MLPerf's checker."),
    "index": ("harness.cli.index", "Index a large tree of runs in one file, for 'harness fleet'."),
    "fleet": (
        "harness.cli.fleet",
        "Rank methods over all machines of an index.",
    ),
    "merge": ("harness.cli.merge", "Join runs of several machines into one tree, each verified."),
    "procure": (
        "harness.cli.procure",
        "Say which machine is worth it within the limits, and what it costs.",
    ),
    "targets": ("harness.cli.targets", "List the targets, whether they run here, and what they can do."),
    "methods": ("harness.cli.methods", "List the compression methods and their parameters."),
    "workloads": ("harness.cli.workloads", "List the workloads: models with their data."),
    "plugins": ("harness.cli.plugins", "List the plugins: what they offer, or why they are not used."),
    "pack": ("harness.cli.pack", "Pack a run's artifacts, to measure them on another host."),
    "bundle": ("harness.cli.bundle", "Pack all evidence about one cell into one file."),
    "reproduce": ("harness.cli.reproduce", "Measure a bundle's cell again, and say if it holds."),
    "verify": ("harness.cli.verify", "Check that a run's files are whole and its summaries follow from them."),
    "selftest": (
        "harness.cli.selftest",
        "Measure what is known: times, ratios, noise, memory, other tools.",
    ),
    "doctor": ("harness.cli.doctor", "Say what is missing here and what will disturb measurements."),
    "cache": ("harness.cli.cache", "Show, prune or clear the cache of built models."),
}


@dataclass(frozen=True)
class App:
    """What the group's options say.

    Attributes:
        block: Plugins that are not imported.
        choose: Name that several plugins offer -> the plugin whose offer is used.
    """

    block: tuple[str, ...] = field(default=())
    choose: Mapping[str, str] = field(default_factory=dict)

    def registry(self) -> Registry:
        """Load the installed plugins; from then on stdout takes the answer alone."""
        from harness.cli import answer
        from harness.plugins import load_registry  # importlib.metadata and pluggy stay off the way of --help

        answer.keep()
        return load_registry(block=self.block, choose=self.choose, tried=True)


class StaticGroup(click.Group):
    """A group that lists its commands from ``COMMANDS`` and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  as above
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from harness.params import suggest

            ctx.fail(f"no command is called {args[0]!r}; {suggest(args[0], COMMANDS, 'command')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  as above
        """Print the table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_module, line) in COMMANDS.items()])


def _words(variable: str) -> list[str]:
    return [text for text in re.split(r"[,\s]+", os.environ.get(variable, "")) if text]


def _asked(given: Sequence[str]) -> App:
    """Read what -p and the environment say of plugins."""
    block = [name.removeprefix("no:") for name in _words("HARNESS_BLOCK")]
    choose: dict[str, str] = {}
    for text in (*_words("HARNESS_CHOOSE"), *given):
        name, chosen, plugin = text.partition("=")
        if chosen and name and plugin:
            choose[name] = plugin
        elif text.startswith("no:") and text != "no:" and not chosen:
            block.append(text.removeprefix("no:"))
        else:
            raise click.BadParameter(f"{text!r} is not no:NAME or NAME=PLUGIN", param_hint="-p")
    return App(tuple(dict.fromkeys(block)), choose)


@click.group(cls=StaticGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-p", "plugins", multiple=True, metavar="no:PLUGIN|NAME=PLUGIN",
    help="Do not import a plugin, or use its offer of a name that several have; repeatable. HARNESS_BLOCK and "
    "HARNESS_CHOOSE name more.",
)  # fmt: skip
@click.version_option(__version__, message="harness %(version)s")
@click.pass_context
def cli(ctx: click.Context, plugins: tuple[str, ...]) -> None:
    """Which model-compression method, on which hardware, is worth it?

    'harness bench --targets all' needs no configuration. Results go to stdout, talk to stderr.
    """
    ctx.obj = _asked(plugins)


def _fail(error: HarnessError) -> int:
    from harness.explain import readable

    click.echo(f"error: {readable(error.message)}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


def call(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; errors raised on purpose are printed without a traceback."""
    try:
        result: Any = cli.main(args=args, prog_name="harness", standalone_mode=False)
    except HarnessError as error:
        return _fail(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, SystemExit) as error:
        return _left(error)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        from harness.cli.answer import stream

        os.dup2(os.open(os.devnull, os.O_WRONLY), stream().fileno())
        return 0
    except OSError as error:  # a folder that is a file, a disk that is full or read-only: the user's to mend
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"error: {error.strerror or error}{where}", err=True)
        return 2
    except Exception as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _left(error: BaseException) -> int:
    """Say that the user stopped the command, or that code which it called wanted to."""
    from harness.faults import of_plugin

    if isinstance(error, click.Abort) or (isinstance(error, KeyboardInterrupt) and not of_plugin(error)):
        click.echo("interrupted", err=True)
        return 130
    return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    """Say in one sentence what nobody expected, and where its traceback lies."""
    from harness.cli.crash import told

    message, hint = told(error)
    click.echo(f"error: {message}", err=True)
    click.echo(f"  hint: {hint}", err=True)
    return 1


def main() -> NoReturn:
    """Run the command line of this process."""
    import threading

    from harness.cli import answer
    from harness.faults import listen

    answer.arm()
    listen()
    code = call()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        answer.stream().flush()
        os._exit(code)  # a thread that a plugin left would keep the process for ever
    sys.exit(code)


if __name__ == "__main__":
    main()
