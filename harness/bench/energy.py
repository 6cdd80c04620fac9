"""Energy of a run's cells, in a process of its own for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.measure import Member
from harness.measure.energy import measure_energy, sensor_for
from harness.measure.sensors import NoEnergy
from harness.profiles import Profile
from harness.types import Energy


@dataclass(frozen=True)
class EnergyPart:
    """The finished energy launch of a cell."""

    result: Energy


def read_energy(
    member: Member, devices: Sequence[str], meter: str, profile: Profile, *, seed: int, timeout_s: float
) -> EnergyPart:
    """Measure the energy of a cell; where there is no sensor, level E0 says why.

    Raises:
        PlanError: The meter's log cannot be read.
    """
    try:
        sensor = sensor_for(devices, Path(meter) if meter else None)
    except NoEnergy as missing:
        return EnergyPart(Energy("E0", reason=missing.reason))
    return EnergyPart(measure_energy(member, sensor, profile, seed=seed, timeout_s=timeout_s))
