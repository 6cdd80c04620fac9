"""An external meter's log: a CSV of moments with watts, or with the joules counted so far, in the host's own time."""

from __future__ import annotations

import bisect
import csv
import itertools
import re
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import PlanError
from harness.measure.sensors import Mark, NoEnergy
from harness.types import EnergyLevel

TIMES = {"time", "timestamp", "utc", "date", "datetime", "ts", "epoch"}
POWER = {"w": 1.0, "watt": 1.0, "watts": 1.0, "power": 1.0, "powerw": 1.0, "powerwatts": 1.0, "mw": 1e-3, "kw": 1e3}
COUNTED = {
    "j": 1.0, "joule": 1.0, "joules": 1.0, "energyj": 1.0, "wh": 3600.0, "energywh": 3600.0, "kwh": 3.6e6,
    "energykwh": 3.6e6,
}  # fmt: skip
HINT = "a header such as 'timestamp,watts', then lines such as '2026-11-25T01:02:03.5Z,41.7'"
GAP = 10.0  # times the typical distance of two lines: a longer hole in the log is no measurement
WAIT_S = 5.0  # beyond two of its periods, for the meter to write what it saw


class Meter:
    """A log that a meter writes while the harness measures.

    Raises:
        PlanError: It cannot be read, has no column that is known, or fewer than two moments.
    """

    level: EnergyLevel = "E3"

    def __init__(self, path: Path, *, wait_s: float = WAIT_S) -> None:
        self.path, self.wait_s = path, wait_s
        self.source = f"meter's log {path.name}"
        self._read()
        self.period_s = statistics.median(b - a for a, b in itertools.pairwise(self.times))

    def _read(self) -> None:
        self.times, values, self.counted = _columns(self.path)
        self.total = values if self.counted else _integral(self.times, values)
        self.values = values

    def mark(self) -> Mark:
        """Return this moment; the log is looked at afterwards."""
        return Mark.now()

    def joules(self, before: Mark, after: Mark) -> float:
        """Return the energy between two moments: between two lines power is taken to change evenly."""
        begin, end = before.utc_ns / 1e9, after.utc_ns / 1e9
        deadline = time.monotonic() + self.wait_s + 2 * self.period_s
        while self.times[-1] < end and time.monotonic() < deadline:
            time.sleep(min(0.2, self.period_s))
            try:
                self._read()
            except PlanError as error:
                raise NoEnergy(f"log: {error.message}") from None
        if begin < self.times[0] or end > self.times[-1]:
            held = f"{_clock(self.times[0])} to {_clock(self.times[-1])}"
            raise NoEnergy(f"no_overlap: the log holds {held}, the window is {_clock(begin)} to {_clock(end)}")
        inside = self.times[bisect.bisect_right(self.times, begin) - 1 : bisect.bisect_left(self.times, end) + 1]
        hole = max((b - a for a, b in itertools.pairwise(inside)), default=0.0)
        if hole > GAP * self.period_s:
            raise NoEnergy(f"gap: the log has no line for {hole:.3g} s inside the window")
        return self._at(end) - self._at(begin)

    def _at(self, moment: float) -> float:
        """Return the joules from the first line to a moment inside the log."""
        place = min(bisect.bisect_right(self.times, moment), len(self.times) - 1)
        left, right = self.times[place - 1], self.times[place]
        share = (moment - left) / (right - left)
        if self.counted:
            return self.total[place - 1] + share * (self.total[place] - self.total[place - 1])
        low, high = self.values[place - 1], self.values[place]
        return self.total[place - 1] + (low + share * (high - low) / 2) * (moment - left)


def _integral(times: list[float], watts: list[float]) -> list[float]:
    """Return the joules up to each moment, by the trapezoid rule."""
    steps = (
        (b - a) * (p + q) / 2
        for (a, b), (p, q) in zip(itertools.pairwise(times), itertools.pairwise(watts), strict=True)
    )
    return list(itertools.accumulate(steps, initial=0.0))


def _columns(path: Path) -> tuple[list[float], list[float], bool]:
    """Return moments (s since 1970), values in W or J, and whether they are counted joules."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"the meter's log {path} cannot be read: {error}") from error
    whole = text[: text.rfind("\n") + 1]  # the last line may be written right now
    lines = [line for line in whole.splitlines() if line.strip()]
    if len(lines) < 3:
        raise PlanError(f"the meter's log {path} has fewer than two moments", hint=HINT)
    mark = max(",;\t", key=lines[0].count)
    head = [re.sub(r"[^a-z]", "", name.lower()) for name in next(csv.reader(lines[:1], delimiter=mark))]
    when = next((at for at, name in enumerate(head) if name in TIMES), None)
    scales = {**POWER, **COUNTED}
    what = next((at for at, name in enumerate(head) if name in scales), None)
    if when is None or what is None:
        lacks = "time" if when is None else "watts or joules"
        raise PlanError(f"the meter's log {path} has no column of {lacks}: {lines[0].strip()!r}", hint=HINT)
    pairs: list[tuple[float, float]] = []
    for number, row in enumerate(csv.reader(lines[1:], delimiter=mark), start=2):
        try:
            pairs.append((_moment(row[when]), float(row[what].replace(",", ".")) * scales[head[what]]))
        except (ValueError, IndexError) as error:
            raise PlanError(f"the meter's log {path}, line {number}: {error}", hint=HINT) from error
    times = [moment for moment, _value in pairs]
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise PlanError(f"the meter's log {path} does not go forward in time")
    return times, [value for _moment, value in pairs], head[what] in COUNTED


def _moment(text: str) -> float:
    """Return seconds since 1970 of ISO 8601 (UTC where it names no zone), seconds or milliseconds."""
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number / 1e3 if number > 1e11 else number


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
