"""Which launches count: those that the host disturbed are left out where enough others remain (MEASUREMENT 1.8).

Nothing is deleted: the raw files keep every launch with the evidence, and this choice is made again at each reading.
It rests on the evidence about the host alone, never on how long a launch took.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.types import Launch, LaunchSet

LEAST = (
    6  # launches of a cell that must remain; under it no interval can be given, so all count and the verdict says so
)


def dismiss_noisy(sets: Sequence[LaunchSet], cell_ids: Sequence[str]) -> list[LaunchSet]:
    """Return the sets with the noisy launches of some cells marked as discarded, with their reasons.

    Args:
        sets: Raw launch-sets.
        cell_ids: The cell, and its anchor: two cells of a pair are judged together, so that a set counts for both
            or for neither.
    """
    undisturbed = [item.index for item in sets if _clean(item, cell_ids)]
    present = [item for item in sets if any(launch.cell_id in cell_ids for launch in item.launches)]
    if len(undisturbed) < LEAST or len(undisturbed) == len(present):
        return list(sets)
    return [item if item.index in undisturbed else _marked(item, cell_ids) for item in sets]


def _clean(item: LaunchSet, cell_ids: Sequence[str]) -> bool:
    """Tell whether a set holds launches of these cells, none of which is noisy."""
    own = [launch for launch in item.launches if launch.cell_id in cell_ids and not launch.discarded]
    return bool(own) and all(launch.noise.verdict != "noisy" for launch in own)


def _marked(item: LaunchSet, cell_ids: Sequence[str]) -> LaunchSet:
    def mark(launch: Launch) -> Launch:
        if launch.cell_id not in cell_ids or launch.discarded:
            return launch
        own = "; ".join(launch.noise.reasons) if launch.noise.verdict == "noisy" else "its pair was noisy"
        return dataclasses.replace(launch, discarded=own)

    return dataclasses.replace(item, launches=tuple(mark(launch) for launch in item.launches))
