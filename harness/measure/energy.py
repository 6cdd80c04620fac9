"""Energy of one cell in a fresh worker: idle, windows of inferences back to back, idle (MEASUREMENT 4).

Its process is not that of a latency launch: nothing is read beside a timed loop.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator, Iterable
from pathlib import Path

from harness import codec
from harness.measure import cpus
from harness.measure.member import Member, Setup, WarmUp
from harness.measure.meter import Meter
from harness.measure.process import Worker, WorkerLost, worker_of
from harness.measure.sensors import Mark, NoEnergy, Nvml, Rapl, Sensor
from harness.profiles import Profile
from harness.stats.energy import energy
from harness.types import Energy, EnergyWindow

WINDOWS = 6  # the fewest that carry a 95 % interval of their median
LEAST_PERIODS = {"quick": 10, "standard": 100, "publish": 100}  # of the sensor, in one window
GPU_FACTOR = 3  # a GPU's power follows its temperature
_GPU = re.compile(r".*(cuda|gpu|tensorrt).*", re.IGNORECASE)


def sensor_for(devices: Iterable[str], meter: Path | None) -> Sensor:
    """Return the best sensor of a cell: a meter's log, else the counter of the device that it ran on.

    Raises:
        NoEnergy: There is none, with the reason.
        PlanError: The meter's log cannot be read.
    """
    if meter is not None:
        return Meter(meter)
    return Nvml() if any(_GPU.fullmatch(device) for device in devices) else Rapl()


def window_s(profile: Profile, sensor: Sensor) -> float:
    """Return how long a window lasts: the profile's time, and enough periods of the sensor."""
    factor = GPU_FACTOR if isinstance(sensor, Nvml) else 1
    return max(profile.energy_window_s * factor, LEAST_PERIODS.get(profile.name, 100) * sensor.period_s)


def sensing_s(profile: Profile, sensor: Sensor) -> float:
    """Return seconds from a warm worker to the last reading: six windows, and idle before and after."""
    return profile.warmup_ns / 1e9 + WINDOWS * window_s(profile, sensor) + 2 * _idle_s(profile, sensor)


def _idle_s(profile: Profile, sensor: Sensor) -> float:
    return max(profile.energy_idle_s, 2 * sensor.period_s)


def measure_energy(member: Member, sensor: Sensor, profile: Profile, *, seed: int, timeout_s: float) -> Energy:
    """Measure a cell; what goes wrong is the reason of level E0, and costs nothing else.

    Args:
        member: The cell.
        sensor: What tells the joules.
        profile: How long a window and the idle stretches last.
        seed: Of the inputs' order.
        timeout_s: For all of it, less the windows themselves.
    """
    seconds = window_s(profile, sensor)
    setup = Setup(member, "latency", "latency", seed, cpus.choose(member.options.threads))
    budget = WarmUp(10, profile.warmup_ns, profile.warmup_max_ns, 5, profile.batch_ns, profile.batch_max_ns)
    busy: list[tuple[Mark, Mark, int]] = []
    rest: list[tuple[Mark, Mark, int]] = []
    try:
        with worker_of(member, "latency", timeout_s + WINDOWS * seconds) as worker:
            worker.greet()
            worker.ask("configure", setup=codec.to_data(setup))
            worker.ask("open")
            worker.ask("warm", budget=codec.to_data(budget))
            worker.pause()
            rest.append(_idle(sensor, _idle_s(profile, sensor)))
            with _running(worker):
                for _ in range(WINDOWS):
                    before = sensor.mark()
                    count = int(worker.ask("drive", seconds=seconds)["inferences"])
                    busy.append((before, sensor.mark(), count))
            rest.append(_idle(sensor, _idle_s(profile, sensor)))
        return energy(sensor.level, sensor.source, _windows(sensor, busy), _windows(sensor, rest))
    except WorkerLost as lost:
        return Energy("E0", sensor.source, reason=f"{lost.failure.status}: {lost.failure.reason}")
    except NoEnergy as missing:
        return Energy("E0", sensor.source, reason=missing.reason)


@contextlib.contextmanager
def _running(worker: Worker) -> Generator[None, None, None]:
    worker.proceed()
    yield
    worker.pause()


def _idle(sensor: Sensor, seconds: float) -> tuple[Mark, Mark, int]:
    before = sensor.mark()
    time.sleep(seconds)
    return before, sensor.mark(), 0


def _windows(sensor: Sensor, spans: Iterable[tuple[Mark, Mark, int]]) -> list[EnergyWindow]:
    return [
        EnergyWindow(before.utc_ns, (after.ns - before.ns) / 1e9, count, sensor.joules(before, after))
        for before, after, count in spans
    ]
