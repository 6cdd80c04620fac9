"""Columns of the comparison with the framework's own answers, and what it says of several targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard.digits import plain
from harness.plan.values import ANCHOR

if TYPE_CHECKING:
    from harness.types import Closeness, OracleCheck

    Row = Mapping[str, Any]

UNAVAILABLE = "unavailable: "
WRONG = "wrong answers"


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


def agreement(rows: Sequence[Row]) -> Iterable[str]:
    """Say of the anchors of a section, also those that failed by it, how near each is to the framework's answers.

    Where some are and others are not, it says so first: they then disagree with each other, too.
    """
    anchors = [item for item in rows if item["oracle_sqnr_db"] is not None and item["method"] == ANCHOR]
    for oracle_name in dict.fromkeys(item["oracle"] for item in anchors):
        alike = [item for item in anchors if item["oracle"] == oracle_name]
        near, far = ([_told(item) for item in alike if _wrong(item) == wrong] for wrong in (False, True))
        if far and near:
            yield f"the anchors disagree: {oracle_name} agrees with {', '.join(near)}, not with {', '.join(far)}"
        elif far:
            yield f"no anchor agrees with {oracle_name}: {', '.join(far)}"
        else:
            yield f"anchors against {oracle_name}: {', '.join(near)}"
    for why in dict.fromkeys(item["oracle"] for item in rows if str(item["oracle"] or "").startswith(UNAVAILABLE)):
        yield f"oracle: {why}"


def _wrong(item: Row) -> bool:
    return str(item["reason"] or "").startswith(WRONG)


def _told(item: Row) -> str:
    return f"{item['target']} ({plain(item['oracle_sqnr_db'])} dB)"


def lost_slice(item: Row) -> str:
    """Name the slice that a row lost."""
    if "output_slice_lost" not in (item["flags"] or "").split():
        return ""
    return f"lost: {item['oracle_slice']}, {plain(item['oracle_slice_db'])} dB against {item['oracle']}"
