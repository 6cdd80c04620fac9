"""``harness fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.answer import echo
from harness.cli.common import RESULTS, json_option, print_json

if TYPE_CHECKING:
    from harness.exchange.fleet import Line


@click.command("fleet")
@click.argument("index", required=False, default=RESULTS, type=click.Path(path_type=Path, exists=True))
@click.option("--workload", metavar="W", help="Only this workload.")
@click.option("--target", metavar="T", help="Only this target.")
@click.option(
    "--sort", default="speedup", show_default=True, metavar="ORDER", help="speedup, p50, memory, size, quality."
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Methods of each group.")
@json_option
def command(*, index: Path, workload: str | None, target: str | None, sort: str, top: int, as_json: bool) -> None:
    """Rank methods over all machines of an index.

    The order is that of the geometric mean of their speed-ups, each machine being one replicate.
    """
    from harness.exchange.fleet import fleet

    lines = fleet(index, workload=workload, target=target, sort=sort)
    if as_json:
        print_json(lines)
        return
    _print(lines, top)


def _print(lines: list[Line], top: int) -> None:
    import itertools

    from harness.cli.common import print_table
    from harness.leaderboard.digits import UNKNOWN, plain
    from harness.leaderboard.escape import visible

    head = ("method", "speed-up", "machines", "slower on", "drop", "peak memory MiB", "size KiB")

    def number(value: float | None, scale: float = 1.0) -> str:
        return UNKNOWN if value is None else plain(value / scale)

    def group(line: Line) -> tuple[str, str, int, int, str]:
        return line.workload, line.target, line.threads, line.batch, line.anchor_precision

    for key, found in itertools.groupby(lines, key=group):
        rows = [
            (
                visible(line.method),
                UNKNOWN if line.speedup is None else f"{line.speedup:.3f}" + _span(line),
                str(line.hosts), str(line.slower), number(line.drop), number(line.peak_memory_bytes, 2**20),
                number(line.artifact_bytes, 2**10),
            )
            for line in itertools.islice(found, top)
        ]  # fmt: skip
        workload, target, threads, batch, precision = key
        title = f"{workload} on {target} · {threads} threads · batch {batch} · anchor {precision}"
        print_table(head, rows, title=visible(title))
    echo("speed-ups are geometric means over machines with 95 % intervals; machines are the replicates")


def _span(line: Line) -> str:
    return "" if line.low is None or line.high is None else f" ({line.low:.3f} to {line.high:.3f})"
