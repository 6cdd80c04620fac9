"""Whether a cell does better than the cell of the same run that does the same by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import RecordError
from harness.stats import newcombe_paired

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.store import Run
    from harness.types import Record

HITS = "Wilson"  # the interval of a metric that counts items, right or wrong


def beside_control(record: Record, run: Run) -> str:
    """Say in words that a cell's quality is not shown to be above its control's; empty where it is, or is not known."""
    control = run.by_cell.get(record.provenance.get("control", ""))
    if control is None or record.quality is None or record.quality.value is None or control.quality is None:
        return ""
    try:
        ours, theirs = run.scores(record.cell_id), run.scores(control.cell_id)
    except RecordError:  # the board of a damaged run shows the rest
        return ""
    if ours is None or theirs is None or len(ours) != len(theirs) or record.quality.value.method != HITS:
        return ""
    point, low, high = _difference(ours, theirs)
    name = control.labels.get("method", control.cell_id)
    if low > 0:
        return ""
    words = "worse than" if high < 0 else "not shown to beat"
    return f"{words} its control {name}: {point:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the paired difference of hits in percent with its 95 % interval."""
    first, second = (scores.reshape(len(scores), -1)[:, 0] > 0.5 for scores in (ours, theirs))
    both, only = int((first & second).sum()), int((first & ~second).sum())
    lost, neither = int((~first & second).sum()), int((~first & ~second).sum())
    low, high = newcombe_paired(both, only, lost, neither)
    return 100 * (only - lost) / len(first), 100 * low, 100 * high
