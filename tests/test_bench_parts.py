from __future__ import annotations

import dataclasses

import pytest

from harness.bench.blocks import Block, Room, SetPlan, blocks_of, link_plans, set_plans
from harness.plan import PlannedCell, Resolved
from harness.profiles import PROFILES
from harness.stats.coverage import coverage, executed_as, flags
from harness.types import REPLICATION, Cell, LaunchSet, Placement, Precision, Step

QUICK = PROFILES["quick"]
ROOMY = Room(10**12, {})


def planned(method: str, target: str = "a", workload: str = "w") -> PlannedCell:
    cell = Cell(Step(workload), (Step(method),), Step(target))
    step = Resolved(Step(target), target, {}, target)
    return PlannedCell(cell, step, (), step, {}, is_anchor=method == "baseline")


def grouped(cells: list[PlannedCell], artifact: str = "1") -> tuple[Block, ...]:
    return blocks_of(cells, {item.cell.cell_id: artifact for item in cells})


def block_of(count: int) -> Block:
    return grouped([planned("baseline"), *(planned(f"m{number}") for number in range(count))])[0]


def stored(plan: SetPlan, **failures) -> LaunchSet:
    return LaunchSet(1, plan.group, plan.index, plan.purpose, plan.anchor, plan.members, "", 1.0, (), failures)


def test_cells_of_one_workload_target_and_options_share_a_block_with_the_anchor_first():
    blocks = grouped([planned("int8"), planned("baseline"), planned("baseline", "b"), planned("int8", workload="v")])
    assert [len(block.cells) for block in blocks] == [2, 1, 1]
    assert blocks[0].ids[0] == blocks[0].anchor == planned("baseline").cell.cell_id
    assert blocks[2].anchor is None


@pytest.mark.parametrize("count", [0, 1, 7, 8, 15])
def test_every_variant_is_in_one_set_of_each_replication_beside_the_anchor(count):
    block = block_of(count)
    for replication in range(3):
        plans = set_plans(block, block.ids, replication, QUICK, 0, ROOMY)
        dealt = sorted(cell_id for plan in plans for cell_id in plan.members if cell_id != block.anchor)
        assert dealt == sorted(set(block.ids) - {block.anchor})
        assert all(plan.members[0] == plan.anchor == block.anchor for plan in plans)
        assert all(len(plan.members) <= QUICK.variants + 1 for plan in plans)
        assert all(plan.index // REPLICATION == replication for plan in plans)


def test_company_changes_between_replications_and_repeats_for_a_seed():
    block = block_of(14)
    again = [
        [plan for replication in range(6) for plan in set_plans(block, block.ids, replication, QUICK, seed, ROOMY)]
        for seed in (1, 1, 2)
    ]
    assert again[0] == again[1] != again[2]
    assert len({frozenset(plan.members) for plan in again[0]}) > 2


def test_a_set_that_does_not_fit_into_memory_is_split_and_keeps_its_anchor():
    block = block_of(4)
    room = Room(35, dict.fromkeys(block.ids, 10))
    plans = set_plans(block, block.ids, 0, QUICK, 0, room)
    assert [len(plan.members) for plan in plans] == [3, 3]
    assert {plan.members[0] for plan in plans} == {block.anchor}
    assert len({plan.index for plan in plans}) == 2


def test_links_hold_the_living_anchors_of_one_workload():
    blocks = grouped([planned("baseline", target) for target in "abc"] + [planned("baseline", "a", "v")])
    alive = {block.anchor: True for block in blocks if block.anchor != blocks[1].anchor}
    (plan,) = link_plans(blocks, alive, 0, ROOMY)
    assert plan.members == (blocks[0].anchor, blocks[2].anchor)
    assert link_plans(blocks, alive, 0, ROOMY, {(plan.group, plan.index)}) == []
    (whole,) = link_plans(blocks, {block.anchor for block in blocks}, 1, ROOMY)
    assert whole.group == plan.group


def test_a_resumed_run_deals_only_what_no_stored_set_holds():
    block = block_of(4)
    tight, roomy = Room(25, dict.fromkeys(block.ids, 10)), Room(10**9, dict.fromkeys(block.ids, 10))
    first = set_plans(block, block.ids, 0, QUICK, 0, tight)[0]
    rest = set_plans(block, block.ids, 0, QUICK, 0, roomy, [stored(first)])
    held = [cell_id for plan in (first, *rest) for cell_id in plan.members if cell_id != block.anchor]
    assert sorted(held) == sorted(set(block.ids) - {block.anchor})
    assert len({plan.index for plan in (first, *rest)}) == 1 + len(rest)
    assert set_plans(block, block.ids, 0, QUICK, 0, roomy, [stored(plan) for plan in (first, *rest)]) == []


def test_other_artifacts_make_another_group():
    cells = [planned("baseline"), planned("int8")]
    assert grouped(cells, "1")[0].block_id != grouped(cells, "2")[0].block_id


def ran(*parts: tuple[str, int | None]) -> list[Placement]:
    return [Placement("Conv", str(at), "k", "cpu", precision, macs) for at, (precision, macs) in enumerate(parts)]


INT8 = Precision("int8", "int8", "static")


def test_coverage_is_the_share_of_macs_and_of_operators():
    found = coverage(ran(("int8", 300), ("float32", 100), ("float32", None)), INT8)
    assert (found.by_macs, found.by_op, found.by_time) == (0.75, 1 / 3, None)
    assert executed_as(ran(("int8", 300), ("float32", 100))) == "int8"


@pytest.mark.parametrize(
    ("placements", "precision", "expected"),
    [
        (ran(("int8", 60), ("float32", 40)), INT8, ()),
        (ran(("int8", 40), ("float32", 60)), INT8, ("not_actually_quantised",)),
        (ran(("bfloat16", 10)), Precision(), ("precision_leak",)),
        (ran(("float32", 10)), Precision("float16", "float16"), ("stored_float16_executed_float32",)),
        (ran(("float16", 10)), Precision("float16", "float16"), ()),
        (ran(("float32", 10)), Precision(storage="packed"), ("stored_1bit_executed_float32",)),
        (ran(("float32", 10)), Precision(storage="sparse"), ("stored_sparse_executed_dense",)),
    ],
)
def test_flags_say_what_the_label_did_not_do(placements, precision, expected):
    assert flags(placements, precision, coverage(placements, precision), ()) == expected


def test_an_operator_on_another_device_is_a_fallback():
    placements = [*ran(("float32", 10)), dataclasses.replace(ran(("float32", 10))[0], device="gpu")]
    assert "fallback" in flags(placements, Precision(), coverage(placements, Precision()), ())
