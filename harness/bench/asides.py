"""How long what is asked for beside latency and accuracy takes on this host: what the plan's minutes count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path

from harness.bench.robust import EXTENTS, corruptions_of, per_shard
from harness.feeds import items_in
from harness.measure.energy import sensing_s, sensor_for
from harness.measure.layers import ITEMS
from harness.measure.scenarios import driving_s
from harness.measure.sensors import NoEnergy
from harness.plan import Asides, Load, Request, Resolved, TargetState
from harness.plan.chosen import Chosen
from harness.profiles import Profile, profile_named

FLOAT_BYTES = 4  # of a number in an image
UNREAD_ITEMS = 500  # test items of a workload that is not read: the digits have 450


def asides(
    request: Request,
    wanted: Mapping[str, Resolved],
    states: Mapping[str, TargetState],
    workloads: Iterable[Chosen] = (),
) -> Asides:
    """Return what a request asks for beside latency and accuracy.

    Args:
        request: With ``energy``, ``scenarios``, ``robustness``, ``layers``.
        wanted: Targets by their text.
        states: What probing them gave.
        workloads: Whose items are corrupted, or run to compare operators.

    Raises:
        PlanError: The meter's log cannot be read.
    """
    profile = profile_named(request.profile)
    sensed = {text: _energy(request, profile, found, states.get(text)) for text, found in wanted.items()}
    loads = {chosen.text: _load(request, chosen) for chosen in workloads if request.robustness or request.layers}
    return Asides(
        energy_s={text: seconds for text, seconds in sensed.items() if seconds is not None},
        scenarios_s={name: driving_s(name, profile) for name in request.scenarios},
        loads={text: load for text, load in loads.items() if load is not None},
        corruptions=len(corruptions_of(EXTENTS[profile.name])) if request.robustness else 0,
    )


def _load(request: Request, workload: Chosen) -> Load | None:
    """Return how many items of a workload are run again; ``None`` where its plugin does not tell what they are."""
    try:
        shapes = [spec.shape for spec in workload.spec.inputs(workload.params).values()]
        items = _items(workload)
    except Exception:  # noqa: BLE001  whatever a plugin raises is told in its place, when the items are read
        return None
    values = sum(prod(size or 1 for size in shape[1:]) for shape in shapes)
    compared = min(ITEMS[request.profile], items) if request.layers else 0
    if not request.robustness or not _is_image(shapes):
        return Load(values, compared=compared)
    extent = EXTENTS[request.profile]
    corrupted = min(extent.items, items)
    shards = -(-len(corruptions_of(extent)) // per_shard(corrupted * values * FLOAT_BYTES))
    return Load(values, corrupted, shards, compared)


def _is_image(shapes: Sequence[tuple[int | None, ...]]) -> bool:
    from harness.bench.corruptions import channel_axis  # only where something is corrupted

    try:
        channel_axis(shapes[0])
    except ValueError:
        return False
    return len(shapes) == 1


def _items(workload: Chosen) -> int:
    """Return the test items of a user's own data, which is read anyway; the others' are not read for a prediction."""
    if workload.spec.modality != "file":
        return UNREAD_ITEMS
    items = workload.spec.split(workload.params, "test").inputs
    return next(iter(items_in(workload.ask("inputs"), items).values()))


def _energy(request: Request, profile: Profile, target: Resolved, state: TargetState | None) -> float | None:
    if not request.energy:
        return None
    devices = state.capabilities.devices if state and state.capabilities else ()
    named = [value for value in target.params.values() if isinstance(value, str)]
    try:
        sensor = sensor_for(
            [*named, *(devices if len(devices) == 1 else ())], Path(request.meter) if request.meter else None
        )
    except NoEnergy:
        return None  # each cell will say so, at once
    return sensing_s(profile, sensor)
