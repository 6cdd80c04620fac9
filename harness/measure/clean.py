"""This host's clean mode: how fast the canary runs here when nothing is in its way, learnt from past probes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness import codec
from harness.errors import RecordError

KEPT = 1000
ENOUGH = 100  # probes before a level is judged (MEASUREMENT 1.8)
SHARE = 0.95


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


def mode(rates: Sequence[float]) -> float | None:
    """Return the clean mode in GFLOP/s: the 95th percentile of the rates, ``None`` below 100 of them."""
    if len(rates) < ENOUGH:
        return None
    return sorted(rates)[int(SHARE * (len(rates) - 1))]


def _file(host_id: str, root: Path | None) -> Path:
    return (root or folder()) / f"probes-{host_id}.json"
