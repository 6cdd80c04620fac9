"""Numbers with the digits that their interval supports, and no more."""

from __future__ import annotations

import math

MINUS = "−"  # noqa: RUF001  a minus sign is what it is
DASH = "–"  # noqa: RUF001  between the ends of a range
UNKNOWN = DASH


def unknown(value: object) -> bool:
    """Tell whether a value is one of the ways in which a table says "not known": None, NaN, pandas' NA."""
    return value is None or str(value) == "<NA>" or value != value


def decimals(half_width: float) -> int:
    """Return decimals by the rule of the Particle Data Group: two digits of an error under 3.55, else one."""
    if not half_width > 0:
        return 4
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10**exponent
    return 1 - exponent if leading < 3.55 else -exponent


def fixed(value: float, places: int) -> str:
    """Format with this many decimals; negative ones round to tens; the sign is a minus, not a hyphen."""
    text = f"{round(value, places):.{max(0, places)}f}"
    zero = not any(digit in text for digit in "123456789")
    return text.replace("-", "" if zero else MINUS)


def plain(value: float, digits: int = 3) -> str:
    """Format a number that has no interval, with this many significant digits."""
    if not value:
        return "0"
    return fixed(value, digits - 1 - math.floor(math.log10(abs(value))))


def ranged_in(unit: float, point: float, low: float | None, high: float | None) -> tuple[str, str]:
    """Return ``ranged`` of an estimate in a unit that is so many of its own."""
    return ranged(point / unit, None if low is None else low / unit, None if high is None else high / unit)


def ranged(point: float, low: float | None, high: float | None) -> tuple[str, str]:
    """Format a point and its interval, such as ("2.52", "2.41–2.60"); the second is empty without bounds."""
    if low is None or high is None:
        return plain(point), ""
    largest = max(abs(low), abs(high), abs(point))
    most = 4 - math.floor(math.log10(largest)) if largest > 0 else 4  # five significant digits are all a timer gives
    places = min(decimals((high - low) / 2), most)
    joint = " to " if low < 0 else DASH
    return fixed(point, places), f"{fixed(low, places)}{joint}{fixed(high, places)}"
