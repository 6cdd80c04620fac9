"""The rows that no other row beats in everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[Any]

OBJECTIVES = ("quality", "p50_ns", "peak_memory_bytes", "artifact_bytes", "energy_j")  # those that the table has
_WITHIN = ["host", "workload", "target", "threads", "batch"]


def mark_pareto(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column ``pareto``: on the front of quality, p50, peak memory and artifact size.

    The front is found per host, workload, target and options, by point estimates, among ranked rows that have all
    four figures; without a task metric, among the other three. Energy counts too where all rows have it, of one
    level. Other rows have no value.
    """
    import numpy as np  # as pandas, only where a table is made
    import pandas as pd

    front = pd.Series(pd.NA, index=frame.index, dtype="boolean")
    ranked = frame[frame["ranked"].fillna(value=False)]
    for _group, rows in ranked.groupby(_WITHIN, dropna=False):
        names = [name for name in OBJECTIVES if name in rows and bool(rows[name].notna().any())]
        if "energy_j" in names and not _comparable_energy(rows):
            names.remove("energy_j")
        whole = rows[rows[names].notna().all(axis=1)]
        costs = np.column_stack([_cost(whole, name) for name in names]) if names else np.empty((0, 0))
        if len(whole):
            front[whole.index] = undominated(costs)
    marked = frame.assign(pareto=front)
    marked.attrs = dict(frame.attrs)
    return marked


def _comparable_energy(rows: pd.DataFrame) -> bool:
    """Tell whether all rows have energy of one level: levels never meet in one front."""
    return bool(rows["energy_j"].notna().all()) and rows["energy_level"].nunique() == 1


def _cost(rows: pd.DataFrame, name: str) -> Array:
    values: Array = rows[name].astype("float64").to_numpy()
    if name != "quality":
        return values
    better = rows["higher_is_better"].fillna(value=True).astype(bool).to_numpy()
    signed: Array = values * (1 - 2 * better.astype("float64"))
    return signed


def undominated(costs: Array) -> Array:
    """Return for each row of costs [n, k] whether no other is as low in all columns and lower in one: bool [n]."""
    import numpy as np  # as above

    ours, theirs = costs[:, None, :], costs[None, :, :]
    beats = np.all(ours <= theirs, axis=2) & np.any(ours < theirs, axis=2)
    return np.asarray(~np.any(beats, axis=0))
