"""Which cells are measured together: blocks of one workload, target and options, split into launch-sets."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.codec import sha256
from harness.plan import PlannedCell
from harness.profiles import Profile

PER_REPLICATION = 1000  # set indices are replication * this + number, so a resumed run finds the same ones


@dataclass(frozen=True)
class Block:
    """Cells that share an anchor.

    Attributes:
        anchor: cell_id of the anchor, ``None`` where there is none.
        cells: All cells, the anchor first.
    """

    block_id: str
    anchor: str | None
    cells: tuple[PlannedCell, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The cell_ids, the anchor first."""
        return tuple(planned.cell.cell_id for planned in self.cells)


@dataclass(frozen=True)
class SetPlan:
    """One launch-set that is due."""

    group: str
    index: int
    purpose: Literal["variants", "link"]
    anchor: str | None
    members: tuple[str, ...]


def blocks_of(cells: Iterable[PlannedCell]) -> tuple[Block, ...]:
    """Group cells by workload, target and options; the anchor comes first in each block."""
    grouped: dict[str, list[PlannedCell]] = defaultdict(list)
    for planned in cells:
        cell = planned.cell
        grouped[sha256([cell.workload, cell.target, cell.options])[:16]].append(planned)
    return tuple(_block(block_id, members) for block_id, members in grouped.items())


def _block(block_id: str, members: list[PlannedCell]) -> Block:
    ordered = sorted(members, key=lambda planned: not planned.is_anchor)
    anchor = ordered[0].cell.cell_id if ordered[0].is_anchor else None
    return Block(block_id, anchor, tuple(ordered))


@dataclass(frozen=True)
class Room:
    """Memory that the members of a set may take together, and what each takes at its peak."""

    bytes: int
    peaks: Mapping[str, int]

    def split(self, members: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Split a set so that its members, all loaded at once, fit; the first one stays in each part."""
        first, rest = members[:1], members[1:]
        base = sum(self.peaks.get(cell_id, 0) for cell_id in first)
        parts: list[list[str]] = [[]]
        used = base
        for cell_id in rest:
            need = self.peaks.get(cell_id, 0)
            if parts[-1] and used + need > self.bytes:
                parts.append([])
                used = base
            parts[-1].append(cell_id)
            used += need
        return [(*first, *part) for part in parts]


def set_plans(
    block: Block, alive: Sequence[str], sets: range, profile: Profile, seed: int, room: Room
) -> list[SetPlan]:
    """Deal the living variants into launch-sets, anew for each replication, from the run's seed.

    Every set holds the anchor and at most ``profile.variants`` variants, so that each comparison
    is made within seconds (MEASUREMENT.md section 1.4 a and c).
    """
    variants = sorted(cell_id for cell_id in alive if cell_id != block.anchor)
    anchor = block.anchor if block.anchor in alive else None
    parts = max(1, -(-len(variants) // profile.variants))
    plans: list[SetPlan] = []
    for replication in sets:
        dealt = list(variants)
        random.Random(f"{seed}/{block.block_id}/{replication}").shuffle(dealt)  # noqa: S311  not for secrets
        hands = [tuple(([anchor] if anchor else []) + dealt[part::parts]) for part in range(parts)]
        fitting = [members for hand in hands if hand for members in room.split(hand)]
        plans += [
            SetPlan(block.block_id, replication * PER_REPLICATION + number, "variants", anchor, members)
            for number, members in enumerate(fitting)
        ]
    return plans


def link_plans(blocks: Sequence[Block], alive: Mapping[str, bool], sets: range) -> list[SetPlan]:
    """Plan the link sets: per workload and options, the anchors of all targets interleaved."""
    groups: dict[str, list[str]] = defaultdict(list)
    for block in blocks:
        if block.anchor is not None and alive.get(block.anchor):
            cell = block.cells[0].cell
            groups[sha256([cell.workload, cell.options, "link"])[:16]].append(block.anchor)
    return [
        SetPlan(group, index * PER_REPLICATION, "link", anchors[0], tuple(anchors))
        for group, anchors in groups.items()
        if len(anchors) > 1
        for index in sets
    ]
