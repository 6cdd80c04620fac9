"""Columns of the comparison with the framework's own answers, and what it says of several targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.types import Closeness, OracleCheck

UNAVAILABLE = "unavailable: "


def oracle(found: OracleCheck) -> dict[str, Any]:
    """Return the columns of one record; the worst output counts."""
    if not found.outputs:
        return {"oracle": f"{UNAVAILABLE}{found.reason}" if found.reason else None}
    outputs = found.outputs.values()
    worst = min(outputs, key=lambda item: item.sqnr_db)
    return {
        "oracle": found.oracle,
        "oracle_sqnr_db": worst.sqnr_db,
        "oracle_cosine": _extreme(min, outputs, "cosine"),
        "oracle_max_abs_error": _extreme(max, outputs, "max_abs_error"),
        "oracle_mean_abs_error": _extreme(max, outputs, "mean_abs_error"),
        "oracle_agreement": _extreme(min, outputs, "agreement"),
        "oracle_worst_item": worst.worst_item,
        **_slice(found),
    }


def _extreme(pick: Callable[..., float], outputs: Iterable[Closeness], name: str) -> float | None:
    known = [value for item in outputs if (value := getattr(item, name)) is not None]
    return pick(known) if known else None


def _slice(found: OracleCheck) -> dict[str, Any]:
    """Return the worst slice: one that died before one that is merely bad."""
    every = [(name, item) for name, each in found.outputs.items() for item in (*each.lost[:1], *each.slices)]
    if not every:
        return {}
    name, worst = min(every, key=lambda item: (not item[1].lost, item[1].sqnr_db))
    return {"oracle_slice_db": worst.sqnr_db, "oracle_slice": f"{name} axis {worst.axis} index {worst.index}"}
