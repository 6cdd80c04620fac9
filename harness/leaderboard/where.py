"""Which rows are shown: conditions such as ``target=openvino,tflite``, ``p50<2ms``, ``method~int8``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from harness.errors import PlanError
from harness.leaderboard.columns import COLUMNS, Column
from harness.leaderboard.table import SORTS
from harness.params import suggest

if TYPE_CHECKING:
    import pandas as pd

_FORM = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|!=|<|>|=|~)\s*(.+?)\s*")
_FIGURE = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z%µ/]*)", re.IGNORECASE)
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_UNITS: dict[str, dict[str, float]] = {
    "ns": {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9},
    "bytes": {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "share 0..1": {"%": 0.01},
    "ratio": {"x": 1},
    "s": {"s": 1, "min": 60, "h": 3600},
}
_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True)
class Condition:
    """One condition on one column; ``values`` is text for texts and flags, one number in base units otherwise."""

    column: Column
    order: str
    values: tuple[Any, ...]

    def keeps(self, frame: pd.DataFrame) -> pd.Series[bool]:
        """Return which rows meet it; a row whose value is not known meets nothing."""
        series = frame[self.column.name]
        if self.column.dtype in {"number", "count"}:
            known = _ORDERS[self.order](series.astype("float64"), self.values[0])
        else:
            known = self._texts(series)
        kept: pd.Series[bool] = known & series.notna()
        return kept

    def _texts(self, series: pd.Series[Any]) -> pd.Series[bool]:
        texts = series.astype("str").str.lower()
        if self.order == "~":
            return texts.map(lambda text: any(value in text for value in self.values))
        return texts.isin(self.values) == (self.order == "=")


def parse_where(text: str) -> Condition:
    """Read one condition: a column (or an order's name, such as p50), a comparison, and values between commas.

    Raises:
        PlanError: No such column, no comparison, or a value that the column cannot have.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise PlanError(
            f"{text!r} is no condition", hint="such as 'target=openvino,tflite', 'p50<2ms' or 'method~int8'"
        )
    name, order, value = found.groups()
    column = _column(name)
    if column.dtype in {"number", "count"}:
        if order == "~":
            raise PlanError(f"{column.name} is a number: it has no text to look into", hint="use <, <=, >, >=, = or !=")
        return Condition(column, order, (_number(value, column),))
    if order not in {"=", "!=", "~"}:
        raise PlanError(f"{column.name} is a text: it is not ordered", hint="use =, != or ~ (contains)")
    words = tuple(word.strip().lower() for word in value.split(","))
    if column.dtype == "flag":
        words = tuple(_flag(word, column) for word in words)
    return Condition(column, order, words)


def _column(name: str) -> Column:
    real = SORTS[name][0] if name in SORTS else name
    if real not in _BY_NAME:
        near = get_close_matches(name, [*SORTS, *_BY_NAME], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"such as target, method, status, {', '.join(SORTS)}"
        raise PlanError(f"the table has no column {name!r}", hint=hint)
    return _BY_NAME[real]


def _number(text: str, column: Column) -> float:
    units = {**_UNITS.get(column.unit, {}), "": 1.0, column.unit.lower(): 1.0}
    found = _FIGURE.fullmatch(text)
    if found is None or found[2].lower() not in units:
        allowed = ", ".join(unit for unit in units if unit) or "no unit"
        raise PlanError(f"{text!r} is no value of {column.name}", hint=f"a number, with {allowed}")
    return float(found[1]) * units[found[2].lower()]


def _flag(word: str, column: Column) -> str:
    known = {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"}
    if word not in known:
        raise PlanError(f"{word!r} is no value of {column.name}", hint="yes or no")
    return known[word].lower()


def where(frame: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    """Return the rows that meet all conditions; ranks stay those of the whole division.

    Raises:
        PlanError: One is no condition.
    """
    parsed: Sequence[Condition] = [parse_where(text) for text in conditions]
    kept = frame
    for condition in parsed:
        kept = kept[condition.keeps(kept)]
    kept.attrs = dict(frame.attrs)
    return kept


def group_columns(texts: Iterable[str]) -> list[str]:
    """Return the columns that cut the board into sections, beside host, workload and options.

    Raises:
        PlanError: One is no column of text or counts.
    """
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    fit = [column.name for column in COLUMNS if column.dtype != "number"]
    for name in names:
        if name not in fit:
            raise PlanError(f"the board cannot be grouped by {name!r}", hint=suggest(name, fit, "column"))
    return names
