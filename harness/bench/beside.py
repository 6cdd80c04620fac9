"""What is asked for beside latency, memory and accuracy: corrupted images, operators, scenarios and energy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from harness.bench.blocks import Block
from harness.bench.energy import EnergyPart, read_energy
from harness.bench.layers import LayersPart, compare_layers
from harness.bench.records import CheckPart
from harness.bench.robust import RobustnessPart, Spoiler, due
from harness.bench.scenarios import ScenarioPart, measure
from harness.bench.shared import Shared, title
from harness.codec import sha256
from harness.plan import PlannedCell
from harness.types import ScenarioResult


def run_corrupted(shared: Shared, blocks: tuple[Block, ...]) -> dict[str, RobustnessPart]:
    """Run the living cells on corrupted copies of the test images, where that was asked for; parts by cell_id."""
    if not shared.request.robustness:
        return {}
    parts: dict[str, RobustnessPart] = {}
    shared.ui.stage("robustness", len(blocks))
    for number, block in enumerate(blocks):
        shared.ui.advance("robustness", number, title(block.cells[0]))
        stored: dict[str, RobustnessPart] = {}
        for cell_id in shared.alive(block):
            against = shared.against(block, cell_id)
            found = shared.store.part(cell_id, "robustness", RobustnessPart, inputs_sha256=against)
            stored |= {} if found is None else {cell_id: found}
        cells = [item for item in due(block, shared.alive(block)) if item.cell.cell_id not in stored]
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            spoiler = Spoiler(
                shared.registry, shared.store, shared.context, shared.request, Path(scratch), shared.member
            )
            made = spoiler.block(block, cells, shared.built) if cells else {}
        for cell_id, part in made.items():
            shared.store.write_part(cell_id, "robustness", part, inputs_sha256=shared.against(block, cell_id))
        parts |= stored | made
        shared.ui.advance("robustness", number + 1, "")
    return parts


def compare_operators(shared: Shared, blocks: tuple[Block, ...]) -> dict[str, LayersPart]:
    """Compare the operators of each living cell with its anchor's, where that was asked for; parts by cell_id."""
    pairs = [
        (block, item, shared.built[block.anchor].artifact)
        for block in blocks
        if shared.request.layers and block.anchor is not None and block.anchor not in shared.failures
        for item in due(block, shared.alive(block))
        if not item.is_anchor and item.runs_on == "here"
    ]
    if pairs:
        shared.ui.stage("layers", len(pairs))
    parts: dict[str, LayersPart] = {}
    for number, (block, planned, anchor) in enumerate(pairs):
        cell_id = planned.cell.cell_id
        shared.ui.advance("layers", number, title(planned))
        make = partial(compare_layers, shared.member(planned), anchor, shared.request)
        parts[cell_id] = shared.part(planned, "layers", LayersPart, make, shared.against(block, cell_id))
        shared.ui.advance("layers", number + 1, "")
    return parts


def drive(shared: Shared) -> dict[str, list[ScenarioResult]]:
    """Let the load generator drive each living cell, where that was asked for; results by cell_id."""
    todo = [(planned, name) for planned in shared.alive_here() for name in shared.request.scenarios]
    if todo:
        shared.ui.stage("scenarios", len(todo))
    results: dict[str, list[ScenarioResult]] = {}
    for number, (planned, name) in enumerate(todo):
        shared.ui.advance("scenarios", number, f"{name}: {title(planned)}")
        make = partial(_scenario, shared, planned, name)
        part = shared.part(planned, f"scenario-{name}", ScenarioPart, make, shared.inputs(planned))
        results.setdefault(planned.cell.cell_id, []).append(part.result)
        shared.ui.advance("scenarios", number + 1, "")
    return results


def _scenario(shared: Shared, planned: PlannedCell, name: str) -> ScenarioPart:
    return measure(
        shared.member(planned), name, shared.profile, seed=shared.request.seed, timeout_s=shared.request.timeout_s
    )


def read_energies(shared: Shared, checks: Mapping[str, CheckPart]) -> dict[str, EnergyPart]:
    """Read the energy of each living cell on its devices, where that was asked for; parts by cell_id."""
    alive = shared.alive_here()
    if not shared.request.energy or not alive:
        return {}
    parts: dict[str, EnergyPart] = {}
    shared.ui.stage("energy", len(alive))
    for number, planned in enumerate(alive):
        cell_id = planned.cell.cell_id
        shared.ui.advance("energy", number, title(planned))
        key = sha256([shared.inputs(planned), shared.request.meter])
        devices = [item.device for item in checks[cell_id].placements]
        make = partial(_read_energy, shared, planned, devices)
        parts[cell_id] = shared.part(planned, "energy", EnergyPart, make, key)
        shared.ui.advance("energy", number + 1, "")
    return parts


def _read_energy(shared: Shared, planned: PlannedCell, devices: Sequence[str]) -> EnergyPart:
    return read_energy(
        shared.member(planned),
        devices,
        shared.request.meter,
        shared.profile,
        seed=shared.request.seed,
        timeout_s=shared.request.timeout_s,
    )
