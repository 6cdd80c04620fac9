"""Accuracy gates: who may be ranked at all (MEASUREMENT 3): by the point estimate, or by the interval."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import PlanError

Form = Literal["point", "interval"]
STANDARD = (99.0, 99.9)  # % of the reference's quality, MLPerf's two
_PERCENT = re.compile(r"(?:>=)?\s*(\d+(?:\.\d+)?)\s*%?")
_FLOOR = re.compile(
    r"(?:quality|[a-z][a-z0-9 _-]*?)\s*([<>]=)\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*[a-z%]*", re.IGNORECASE
)
_ROUNDING = 1e-9  # relative: 99 % of a figure, to the last bits of a float


@dataclass(frozen=True)
class Gate:
    """What a row must keep to be ranked.

    Attributes:
        text: As shown.
        percent: Of the float anchor's quality that is kept; ``None`` for a floor.
        floor: Bound on the metric in its own unit (% is 0..100); ``None`` for a share.
        form: "point": the estimate passes. "interval": the worse end of its 95 % interval passes.
    """

    text: str
    percent: float | None = None
    floor: float | None = None
    form: Form = "point"

    def passes(self, row: Mapping[str, Any]) -> bool | None:
        """Tell whether a row passes; ``None`` where its quality, or the interval asked for, is not known."""
        return self._share(row) if self.percent is not None else self._bound(row)

    def _share(self, row: Mapping[str, Any]) -> bool | None:
        value = row.get("retained" if self.form == "point" else "retained_low")
        if value is None or math.isnan(value) or self.percent is None:
            return None
        return bool(value >= self.percent * (1 - _ROUNDING))

    def _bound(self, row: Mapping[str, Any]) -> bool | None:
        higher = bool(row.get("higher_is_better", True))
        end = "quality" if self.form == "point" else "quality_low" if higher else "quality_high"
        value = row.get(end)
        if value is None or math.isnan(value) or self.floor is None:
            return None
        slack = abs(self.floor) * _ROUNDING
        return bool(value >= self.floor - slack if higher else value <= self.floor + slack)


def parse_gate(text: str, form: Form = "point") -> Gate:
    """Read ``99`` or ``99.9%`` (of the float anchor's quality), or ``quality>=97.5`` (in the metric's own unit).

    Raises:
        PlanError: It is neither.
    """
    share = _PERCENT.fullmatch(text.strip())
    if share and 0 < float(share[1]) <= 100:
        return Gate(f"{float(share[1]):g} % of the float anchor", percent=float(share[1]), form=form)
    bound = _FLOOR.fullmatch(text.strip())
    if bound is None:
        raise PlanError(
            f"{text!r} is no gate",
            hint="give 99 or 99.9 (% of the float anchor's quality), or a floor: 'quality>=97.5'",
        )
    return Gate(f"quality {bound[1]} {bound[2]}", floor=float(bound[2]), form=form)


def retained(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what share of the anchor's quality (%) a row keeps, with its interval from the paired difference.

    The anchor's own is 100. A metric that is better when lower keeps 100 less the growth in percent.
    """
    quality, drop = row.get("quality"), row.get("drop")
    if quality is None:
        return {}
    if drop is None:
        return dict.fromkeys(("retained", "retained_low", "retained_high"), 100.0) if row.get("is_anchor") else {}
    reference = quality + drop if row.get("higher_is_better") else quality - drop
    if not reference:
        return {}
    low, high = row.get("drop_high"), row.get("drop_low")
    scale = 100 / abs(reference)
    return {
        "retained": 100 - drop * scale,
        "retained_low": None if low is None else 100 - low * scale,
        "retained_high": None if high is None else 100 - high * scale,
    }


def standard_passes(row: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return whether a row passes MLPerf's two gates, by point and by interval."""
    forms: tuple[tuple[Form, str], ...] = (("point", ""), ("interval", "_interval"))
    return {
        f"pass_{percent:g}".replace(".", "_") + ending: Gate("", percent=percent, form=form).passes(row)
        for percent in STANDARD
        for form, ending in forms
    }
