"""How long what is asked for beside latency and accuracy takes on this host: what the plan's minutes count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.bench.robust import EXTENTS, corruptions_of
from harness.measure.energy import sensing_s, sensor_for
from harness.measure.scenarios import driving_s
from harness.measure.sensors import NoEnergy
from harness.plan import Asides, Request, Resolved, TargetState
from harness.profiles import Profile, profile_named


def asides(request: Request, wanted: Mapping[str, Resolved], states: Mapping[str, TargetState]) -> Asides:
    """Return what a request asks for beside latency and accuracy.

    Args:
        request: With ``energy``, ``scenarios``, ``robustness``, ``layers``.
        wanted: Targets by their text.
        states: What probing them gave.

    Raises:
        PlanError: The meter's log cannot be read.
    """
    profile = profile_named(request.profile)
    sensed = {text: _energy(request, profile, found, states.get(text)) for text, found in wanted.items()}
    return Asides(
        energy_s={text: seconds for text, seconds in sensed.items() if seconds is not None},
        scenarios_s={name: driving_s(name, profile) for name in request.scenarios},
        layers=request.layers,
        corruptions=len(corruptions_of(EXTENTS[profile.name])) if request.robustness else 0,
    )


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
