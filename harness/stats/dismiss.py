"""Which launches count: those that the host disturbed are left out where enough others remain (MEASUREMENT 1.8).

Nothing is deleted: the raw files keep every launch with the evidence, and this choice is made again at each reading.
It rests on the evidence about the host alone, never on how long a launch took. Figures of one pair are made so: a
cell's summary, its ratio across targets, a stage's own effect. Ranks and comparisons of many cells keep every set,
since what they control is the error over cells that were measured in the same sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.types import Launch, LaunchSet

# Launches of a cell that must remain; under it no interval can be given, so all count and the verdict says so.
LEAST = 6


def dismiss_noisy(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str | None) -> list[LaunchSet]:
    """Return the sets with the noisy launches of a cell and its anchor marked as discarded, with their reasons.

    Args:
        sets: Raw launch-sets.
        cell_id: The cell.
        anchor_id: Its anchor, where it has one: two cells of a pair are judged together, so that a set counts for
            both or for neither.
    """
    cell_ids = [cell_id, *([anchor_id] if anchor_id else [])]
    present = [_holds(item, cell_ids) for item in sets]
    clean = [held and _clean(item, cell_ids) for item, held in zip(sets, present, strict=True)]
    if sum(clean) < LEAST:
        return list(sets)
    choice = zip(sets, present, clean, strict=True)
    return [_marked(item, cell_ids) if held and not calm else item for item, held, calm in choice]


def _holds(item: LaunchSet, cell_ids: Sequence[str]) -> bool:
    """Tell whether a set holds launches of all these cells: one of the anchor beside other variants decides nothing."""
    return set(cell_ids) <= {launch.cell_id for launch in item.launches if not launch.discarded}


def _clean(item: LaunchSet, cell_ids: Sequence[str]) -> bool:
    """Tell whether no launch of these cells is noisy."""
    own = [launch for launch in item.launches if launch.cell_id in cell_ids and not launch.discarded]
    return all(launch.noise.verdict != "noisy" for launch in own)


def _marked(item: LaunchSet, cell_ids: Sequence[str]) -> LaunchSet:
    def mark(launch: Launch) -> Launch:
        if launch.cell_id not in cell_ids or launch.discarded:
            return launch
        own = "; ".join(launch.noise.reasons) if launch.noise.verdict == "noisy" else "its pair was noisy"
        return dataclasses.replace(launch, discarded=own)

    return dataclasses.replace(item, launches=tuple(mark(launch) for launch in item.launches))
