"""How fast the canary usually runs on this host, and how much that varies, learnt from past probes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.errors import RecordError

KEPT = 1000
ENOUGH = 100  # probes before a level is judged (MEASUREMENT 1.8)
NORMAL = 0.6745  # median absolute deviation of a normal variable, in standard deviations


@dataclass(frozen=True)
class Usual:
    """What this host's recorded probes say of the canary.

    Attributes:
        gflops: Median rate, in 10^9 operations per second.
        spread: Standard deviation of the rate from probe to probe, as a share of it.
        drift: Standard deviation of the ratio of the two probes around a launch-set.
    """

    gflops: float
    spread: float
    drift: float


def folder() -> Path:
    """Return where state of this user on this host is kept."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "harness"


def history(host_id: str, root: Path | None = None) -> list[float]:
    """Return the canary rates (GFLOP/s) that were stored for a host and library; oldest first, empty without any."""
    path = _file(host_id, root)
    try:
        return codec.loads(list[float], path.read_bytes(), where=str(path))
    except (OSError, RecordError):  # a lost history costs a flag, never a run
        return []


def remember(host_id: str, rates: Sequence[float], root: Path | None = None) -> list[float]:
    """Append rates to a host's history, keep the newest, and return them; an unwritable folder only forgets."""
    kept = [*history(host_id, root), *rates][-KEPT:]
    try:
        codec.write_whole(_file(host_id, root), codec.dumps(kept))
    except OSError:
        return kept
    return kept


def usual(rates: Sequence[float]) -> Usual | None:
    """Return what is usual of the recorded rates, ``None`` below 100 of them.

    Standard deviations come from medians of absolute deviations (Hampel, 1974): up to half of the probes may have been
    disturbed without moving them much.

    Args:
        rates: In GFLOP/s, in the order in which they were probed: before a launch-set and after it, in turn.
    """
    if len(rates) < ENOUGH:
        return None
    middle = statistics.median(rates)
    spread = statistics.median(abs(rate / middle - 1) for rate in rates) / NORMAL
    pairs = zip(rates[::2], rates[1::2], strict=False)
    return Usual(middle, spread, statistics.median(abs(after / before - 1) for before, after in pairs) / NORMAL)


def _file(host_id: str, root: Path | None) -> Path:
    return (root or folder()) / f"probes-{host_id}.json"
