"""Which cells are measured together: blocks of one workload, target and options, split into launch-sets."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.codec import sha256
from harness.plan import PlannedCell
from harness.profiles import Profile
from harness.types import REPLICATION, LaunchSet


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


def blocks_of(cells: Iterable[PlannedCell], inputs: Mapping[str, str]) -> tuple[Block, ...]:
    """Group cells by workload, target and options; the anchor comes first in each block.

    Args:
        cells: All that are measured.
        inputs: cell_id -> inputs_sha256: launch-sets of other artifacts or runtimes are never taken for these.
    """
    grouped: dict[str, list[PlannedCell]] = defaultdict(list)
    for planned in cells:
        cell = planned.cell
        grouped[sha256([cell.workload, cell.target, cell.options])].append(planned)
    return tuple(_block(members, inputs) for members in grouped.values())


def _block(members: list[PlannedCell], inputs: Mapping[str, str]) -> Block:
    ordered = sorted(members, key=lambda planned: not planned.is_anchor)
    anchor = ordered[0].cell.cell_id if ordered[0].is_anchor else None
    ids = sorted(planned.cell.cell_id for planned in members)
    return Block(sha256([[cell_id, inputs[cell_id]] for cell_id in ids])[:16], anchor, tuple(ordered))


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
    block: Block,
    alive: Sequence[str],
    replication: int,
    profile: Profile,
    seed: int,
    room: Room,
    done: Sequence[LaunchSet] = (),
) -> list[SetPlan]:
    """Deal the living variants into launch-sets, anew for each replication, from the run's seed.

    Every set holds the anchor and at most ``profile.variants`` variants, so that each comparison
    is made within seconds (MEASUREMENT.md section 1.4 a and c). Cells that a stored set of this replication holds
    are left out, however that set was dealt.
    """
    stored = [item for item in done if item.index // REPLICATION == replication]
    taken = {cell_id for item in stored for cell_id in item.members}
    number = 1 + max((item.index % REPLICATION for item in stored), default=-1)
    variants = sorted(cell_id for cell_id in alive if cell_id != block.anchor and cell_id not in taken)
    anchor = block.anchor if block.anchor in alive else None
    if not variants and (anchor is None or anchor in taken):
        return []
    parts = max(1, -(-len(variants) // profile.variants))
    random.Random(f"{seed}/{block.block_id}/{replication}").shuffle(variants)  # noqa: S311  not for secrets
    hands = [tuple(([anchor] if anchor else []) + variants[part::parts]) for part in range(parts)]
    fitting = [members for hand in hands if hand for members in room.split(hand)]
    first = replication * REPLICATION + number
    return [
        SetPlan(block.block_id, first + offset, "variants", anchor, members) for offset, members in enumerate(fitting)
    ]


def link_plans(
    blocks: Sequence[Block],
    alive: Collection[str],
    replication: int,
    room: Room,
    done: Collection[tuple[str, int]] = (),
) -> list[SetPlan]:
    """Plan the link sets: per workload and options, the anchors of all targets interleaved.

    Args:
        blocks: Of targets that are ranked.
        alive: Anchors that take part.
        replication: Which one.
        room: A link that does not fit into memory is split; its first anchor stays in each part.
        done: (group, index) of stored sets.
    """
    groups: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        if block.anchor is not None:
            cell = block.cells[0].cell
            groups[sha256([cell.workload, cell.options])].append(block)
    plans: list[SetPlan] = []
    for linked in groups.values():
        anchors = tuple(block.anchor for block in linked if block.anchor is not None and block.anchor in alive)
        if len(anchors) > 1:
            group = sha256([block.block_id for block in linked])[:16]
            first = replication * REPLICATION
            plans += [
                SetPlan(group, first + offset, "link", members[0], members)
                for offset, members in enumerate(room.split(anchors))
                if (group, first + offset) not in done
            ]
    return plans
