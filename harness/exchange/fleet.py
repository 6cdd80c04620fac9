"""Rank methods over all machines of an index: geometric means of speed-ups, with machines as the replicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats as scipy_stats

from harness.claims import NO_MODEL
from harness.errors import PlanError, RecordError
from harness.exchange.index import FILE, arrow
from harness.params import suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = ("workload", "target", "threads", "batch", "anchor_precision", "method")
ORDERS = {"speedup": ("speedup", -1.0), "p50": ("p50_ns", 1.0), "memory": ("peak_memory_bytes", 1.0),
          "size": ("artifact_bytes", 1.0), "quality": ("drop", 1.0)}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One method on one target with one choice of options, over all machines that measured it.

    Attributes:
        speedup, low, high: Geometric mean over machines of each machine's speed-up, with Student's interval of its
            logarithm at 95 %; the bounds are ``None`` with one machine.
        p50_ns: Geometric mean over machines; machines differ, so it orders no method.
        drop: Mean in the metric's unit; positive is worse than the anchor.
        hosts: Machines.
        slower: Machines where it is slower than the anchor, by its own verdict.
    """

    workload: str
    target: str
    threads: int
    batch: int
    anchor_precision: str
    method: str
    hosts: int
    slower: int
    speedup: float | None
    low: float | None
    high: float | None
    p50_ns: float | None
    drop: float | None
    peak_memory_bytes: float | None
    artifact_bytes: float | None


def index_of(path: Path) -> Path:
    """Return the index at a path: the file itself, or the one in a tree.

    Raises:
        RecordError: There is none.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise RecordError(f"there is no index at {file}", hint=f"make it: harness index {path}")
    return file


def fleet(path: Path, *, workload: str | None = None, target: str | None = None, sort: str = "speedup") -> list[Line]:
    """Return the board of an index, best first within each workload, target and options.

    A cell that a machine measured several times counts once, as in the newest record.

    Raises:
        PlanError: No such workload, target or order.
        RecordError: There is no index, or it is damaged or of another schema.
    """
    if sort not in ORDERS:
        raise PlanError(f"no fleet is sorted by {sort!r}", hint=suggest(sort, ORDERS, "order"))
    table = _newest(_ranked(_read(index_of(path), workload, target)))
    lines = [_line(row) for row in _grouped(table).to_pylist()]
    column, sign = ORDERS[sort]

    def key(line: Line) -> tuple[Any, ...]:
        value = getattr(line, column)
        place = (line.workload, line.target, line.threads, line.batch, line.anchor_precision)
        return (*place, math.inf if value is None else sign * value, line.method)

    return sorted(lines, key=key)


_READ = (*KEYS, "host", "run", "cell_id", "finished_utc", "status", "kind", "verdict", "speedup", "p50_ns", "drop",
         "peak_memory_bytes", "artifact_bytes", "flags")  # fmt: skip


def _read(file: Path, workload: str | None, target: str | None) -> Any:
    pa = arrow()
    try:
        names = pa.parquet.read_schema(file).names
        if missing := set(_READ) - set(names):
            lacks = f"{file} is another harness's index: it lacks {', '.join(sorted(missing))}"
            raise RecordError(lacks, hint="make it again: harness index TREE")
        table = pa.parquet.read_table(file, columns=list(_READ)).unify_dictionaries().combine_chunks()
    except pa.ArrowInvalid as error:
        raise RecordError(f"{file} cannot be read: {error}", hint="make it again: harness index TREE") from error
    for name, value in (("workload", workload), ("target", target)):
        if value is not None:
            known = sorted(item for item in table[name].unique().to_pylist() if item)
            if value not in known:
                raise PlanError(f"no record has the {name} {value!r}", hint=suggest(value, known, name))
            table = table.filter(pa.compute.equal(table[name], value))
    return table


def _ranked(table: Any) -> Any:
    pa = arrow()
    pc = pa.compute
    good = pc.and_(pc.equal(table["status"], "ok"), pc.equal(table["kind"], "measured"))
    modelless = pc.match_substring(table["flags"].cast(pa.string()), NO_MODEL)
    return table.filter(pc.and_(good, pc.invert(pc.fill_null(modelless, fill_value=False))))


def _newest(table: Any) -> Any:
    """Keep a machine's newest record of a cell; a tree without repeats is left as it is."""
    table = table.combine_chunks()
    if not table.num_rows:
        return table
    hosts, cells = _codes(table, "host"), _codes(table, "cell_id")
    keys = hosts * (int(cells.max()) + 1) + cells
    order = np.lexsort((_codes(table, "finished_utc"), keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True)
    return table if bool(last.all()) else table.take(np.sort(order[last]))


def _codes(table: Any, name: str) -> NDArray[Any]:
    """Return a column of texts as numbers in the order of the texts."""
    column = table[name].chunk(0)
    order = np.argsort(np.array([text or "" for text in column.dictionary.to_pylist()], dtype=object))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    found: NDArray[Any] = ranks[np.asarray(column.indices.fill_null(0))]
    return found


def _grouped(table: Any) -> Any:
    pc = arrow().compute
    for name in ("speedup", "p50_ns"):
        table = table.append_column(f"log_{name}", pc.ln(table[name]))
    table = table.append_column("slower", pc.cast(pc.equal(table["verdict"], "slower"), "int64"))
    sample = pc.VarianceOptions(ddof=1)
    return table.group_by(list(KEYS)).aggregate(
        [
            ("log_speedup", "mean"), ("log_speedup", "stddev", sample), ("log_speedup", "count"),
            ("log_p50_ns", "mean"), ("drop", "mean"), ("peak_memory_bytes", "mean"), ("artifact_bytes", "mean"),
            ("host", "count_distinct"), ("slower", "sum"),
        ]
    )  # fmt: skip


def _line(row: dict[str, Any]) -> Line:
    mean, spread, count = row["log_speedup_mean"], row["log_speedup_stddev"], row["log_speedup_count"]
    low = high = None
    if count > 1 and spread is not None:
        half = float(scipy_stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
        low, high = math.exp(mean - half), math.exp(mean + half)
    p50 = row["log_p50_ns_mean"]
    return Line(
        **{name: row[name] for name in ("workload", "target", "threads", "batch", "method")},
        anchor_precision=row["anchor_precision"] or "",
        hosts=row["host_count_distinct"],
        slower=row["slower_sum"] or 0,
        speedup=None if mean is None else math.exp(mean),
        low=low,
        high=high,
        p50_ns=None if p50 is None else math.exp(p50),
        drop=row["drop_mean"],
        peak_memory_bytes=row["peak_memory_bytes_mean"],
        artifact_bytes=row["artifact_bytes_mean"],
    )
