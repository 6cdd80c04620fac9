"""What the figures of a section come to: the best cells, no more certain than the evidence makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.leaderboard.digits import plain, ranged, unknown
from harness.leaderboard.escape import visible

Row = Mapping[str, Any]
TIMES = "\N{MULTIPLICATION SIGN}"
KEPT = 99.0  # % of the float anchor's quality that an answer has to keep


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        question: Such as "fastest".
        names: The cells that the evidence leaves: several where it does not decide.
        figure: Of the first.
        doubt: What the answer rests on.
    """

    question: str
    names: tuple[str, ...]
    figure: str
    doubt: str


def answers(rows: Sequence[Row]) -> Iterable[Answer]:
    """Return the answers among the ranked rows that keep 99 % of the float anchor's quality.

    Where no row has a task metric, all ranked rows take part, and the answer says so.
    """
    ranked = [row for row in rows if row["ranked"]]
    judged = [row for row in ranked if not unknown(row["pass_99"])]
    kept = [row for row in judged if row["pass_99"]] if judged else ranked
    rest = _rest(kept, judged)
    across = [row for row in kept if not unknown(row["cross_rank_best"])]
    if across:
        yield _fastest(across, "cross_rank_best", "cross_speedup", rest)
    else:
        for target in sorted({str(row["target"]) for row in kept}):
            same = [row for row in kept if row["target"] == target and not unknown(row["rank_best"])]
            if same:
                yield _fastest(same, "rank_best", "speedup", rest, f" on {visible(target)}")
    yield from _least(kept, "artifact_bytes", "smallest file", lambda value: f"{plain(value / 1024)} KiB", rest)
    yield from _least(kept, "peak_memory_bytes", "least memory", lambda value: f"{plain(value / 2**20)} MiB", rest)


def _rest(kept: Sequence[Row], judged: Sequence[Row]) -> str:
    if not judged:
        return "no task metric: quality is not judged"
    sure = sum(bool(row["pass_99_interval"]) for row in kept)
    return f"of {len(kept)} that keep {KEPT:g} % of the float quality, {sure} by their whole interval"


def _fastest(rows: Sequence[Row], rank: str, speed: str, rest: str, where: str = "") -> Answer:
    """Name every row that may be the fastest of those that take part: none is certainly slower than another."""
    best = min(int(row[rank.replace("best", "worst")]) for row in rows)
    first = sorted((row for row in rows if int(row[rank]) <= best), key=lambda row: -float(row[speed]))
    top = first[0]
    ends = [None if unknown(top[f"{speed}_{end}"]) else float(top[f"{speed}_{end}"]) for end in ("low", "high")]
    figure, span = ranged(float(top[speed]), ends[0], ends[1])
    against = f"against the float anchor of {visible(str(top['cross_reference']))}" if rank == "cross_rank_best" else ""
    noisy = "the latency was noisy" if top["noise"] == "noisy" else ""
    doubt = "; ".join(part for part in (against, rest, noisy) if part)
    return Answer(
        f"fastest{where}", tuple(map(_name, first)), f"{figure}{TIMES}" + (f" ({span})" if span else ""), doubt
    )


def _least(
    rows: Sequence[Row], column: str, question: str, text: Callable[[float], str], rest: str
) -> Iterable[Answer]:
    known = [row for row in rows if not unknown(row[column])]
    if known:
        least = min(float(row[column]) for row in known)
        yield Answer(question, tuple(_name(row) for row in known if float(row[column]) == least), text(least), rest)


def _name(row: Row) -> str:
    return f"{visible(str(row['method']))} on {visible(str(row['target']))}"
