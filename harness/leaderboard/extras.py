"""Columns that a board shows on request, or as soon as something was measured for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import PlanError
from harness.leaderboard.digits import UNKNOWN, plain, ranged_in
from harness.params import suggest

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Extra:
    """One optional column of two lines.

    Attributes:
        header: Of both lines.
        known: The table's column that says whether there is something to show.
        cell: Both lines of a row.
        asked: Shown only where it is asked for; else wherever a row knows it.
        legend: What its figures are.
    """

    header: tuple[str, str]
    known: str
    cell: Callable[[Row], tuple[str, str]]
    asked: bool
    legend: str


def _roofline(item: Row) -> tuple[str, str]:
    if item["percent_of_roofline"] is None:
        return UNKNOWN, ""
    return f"{plain(item['percent_of_roofline'])} %", item["roofline_bound"] or ""


def _energy(item: Row) -> tuple[str, str]:
    if item["energy_j"] is None:
        return UNKNOWN, item["energy_level"] or ""
    point, _span = ranged_in(1e-3, item["energy_j"], item["energy_low_j"], item["energy_high_j"])
    return point, f"{plain(item['items_per_j'])} {item['energy_level']}"


def _oracle(item: Row) -> tuple[str, str]:
    if item["oracle_sqnr_db"] is None:
        return UNKNOWN, ""
    worst = item["oracle_slice_db"]
    return f"{plain(item['oracle_sqnr_db'])} dB", "" if worst is None else f"{plain(worst)} dB"


EXTRAS: Mapping[str, Extra] = {
    "oracle": Extra(
        ("oracle", "slice"),
        "oracle_sqnr_db",
        _oracle,
        asked=False,
        legend="oracle: signal to noise against what the framework itself answers; slice: of the worst channel, class "
        "or coordinate",
    ),
    "energy": Extra(
        ("mJ", "items/J"),
        "energy_level",
        _energy,
        asked=False,
        legend="energy of an inference with what idles meanwhile; E3 by a wall meter, E2 by a sensor on the chip: "
        "the two do not compare",
    ),
    "roofline": Extra(
        ("roofline", "bound"),
        "percent_of_roofline",
        _roofline,
        asked=True,
        legend="roofline: the time that this host needs at least for the multiply-adds and weights, as a share of the "
        "time taken",
    ),
}


def chosen(rows: Sequence[Row], asked: Iterable[str]) -> tuple[Extra, ...]:
    """Return the columns that a section shows: those that are asked for, and those that are known without asking."""
    wanted = set(asked)
    return tuple(
        extra
        for name, extra in EXTRAS.items()
        if name in wanted or (not extra.asked and any(item[extra.known] is not None for item in rows))
    )


def check_extras(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of optional columns.

    Raises:
        PlanError: One is not known.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in EXTRAS:
            raise PlanError(f"no optional column is called {name!r}", hint=suggest(name, EXTRAS, "column"))
    return found
