"""Where joules come from: the CPU's RAPL counters, a GPU's NVML counter, or an external meter's log (MEASUREMENT 4).

A sensor is marked before and after a stretch of time and tells the joules between two marks. What cannot be read
is ``NoEnergy`` with a reason; nothing is ever taken as zero.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.measure.cpus import read_text
from harness.types import EnergyLevel

APART_NS, TRIES = 20_000, 100
POWERCAP = Path("/sys/class/powercap")


class NoEnergy(Exception):
    """Energy cannot be read; ``reason`` begins with a word of the protocol, such as "no_powercap"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Mark:
    """A moment, and what the counters said then, in their own units."""

    utc_ns: int
    ns: int
    counters: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def now(cls, counters: Mapping[str, int] | None = None) -> Mark:
        """Return this moment, read on both clocks without being pushed aside in between."""
        tries = (
            (time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()) for _ in range(TRIES)
        )  # a preempted one is taken again
        before, utc_ns, _after = next(
            (found for found in tries if found[2] - found[0] < APART_NS),
            (time.perf_counter_ns(), time.time_ns(), 0),
        )
        return cls(utc_ns, before, counters or {})


class Sensor(Protocol):
    """What a campaign reads energy from."""

    @property
    def level(self) -> EnergyLevel:
        """E2 on the chip, E3 at the wall."""
        ...

    @property
    def source(self) -> str:
        """In words: which counters, which log."""
        ...

    @property
    def period_s(self) -> float:
        """How often its value is renewed."""
        ...

    def mark(self) -> Mark:
        """Return this moment."""
        ...

    def joules(self, before: Mark, after: Mark) -> float:
        """Return the energy between two moments; raises ``NoEnergy``."""
        ...


@dataclass(frozen=True)
class _Zone:
    folder: Path
    name: str
    wraps_at: int


class Rapl:
    """The packages of the CPU, and their memory where the CPU counts it, through Linux' powercap.

    Counters of microjoules that wrap round at ``max_energy_range_uj``; the cores are part of their package. It counts
    the whole socket, so it is valid only while nothing else runs there.

    Raises:
        NoEnergy: There is no powercap, or its counters are not ours to read (root alone since Linux 5.10).
    """

    level: EnergyLevel = "E2"
    period_s = 0.001

    def __init__(self, root: Path = POWERCAP) -> None:
        self.zones = tuple(zone for folder in sorted(root.glob("intel-rapl:*")) if (zone := _zone(folder)))
        if not self.zones:
            raise NoEnergy(f"no_powercap: {root} lists no package; virtual machines and containers have none")
        self.source = "RAPL: " + ", ".join(zone.name for zone in self.zones)
        self.mark()

    def mark(self) -> Mark:
        """Read every counter now."""
        values: dict[str, int] = {}
        for zone in self.zones:
            try:
                values[zone.name] = int((zone.folder / "energy_uj").read_text())
            except PermissionError:
                reason = f"permission: {zone.folder / 'energy_uj'} is readable by root alone (Linux 5.10 and newer)"
                raise NoEnergy(reason) from None
            except (OSError, ValueError) as error:
                raise NoEnergy(f"unreadable: {zone.folder / 'energy_uj'}: {error}") from None
        return Mark.now(values)

    def joules(self, before: Mark, after: Mark) -> float:
        """Sum the counters' growth; one that went down has wrapped once."""
        total = 0
        for zone in self.zones:
            grown = after.counters[zone.name] - before.counters[zone.name]
            if grown < 0 and not zone.wraps_at:
                raise NoEnergy(f"counter_wrapped: {zone.name} went down, and its range is not told")
            total += grown if grown >= 0 else grown + zone.wraps_at
        return total / 1e6


def _zone(folder: Path) -> _Zone | None:
    """Return a zone that is counted: a package, or the memory beside it; cores, graphics and psys are left out."""
    name = read_text(folder / "name") or ""
    package = folder.name.count(":") == 1
    if not (package and name.startswith("package")) and not (not package and name == "dram"):
        return None
    above = "" if package else (read_text(folder.parent / folder.name.rpartition(":")[0] / "name") or "")
    return _Zone(folder, f"{above} {name}".strip(), int(read_text(folder / "max_energy_range_uj") or 0))


class Nvml:
    """The energy counter of the first GPU that this process may use.

    Raises:
        NoEnergy: There is no NVML, no GPU, or one without a counter (before Volta).
    """

    level: EnergyLevel = "E2"
    period_s = 0.1

    def __init__(self, library: Any = None) -> None:
        try:
            self._nvml = library or importlib.import_module("pynvml")
        except ImportError:
            raise NoEnergy("no_nvml: pip install nvidia-ml-py") from None
        try:
            self._nvml.nvmlInit()
            self._gpu = self._handle()
            name = self._nvml.nvmlDeviceGetName(self._gpu)
            self.source = f"NVML: {name.decode() if isinstance(name, bytes) else name}"
            self.mark()
        except NoEnergy:
            raise
        except Exception as error:  # noqa: BLE001  NVML's errors are classes of its own; any of them is the reason
            raise NoEnergy(f"no_nvml: {error}") from None

    def _handle(self) -> Any:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if visible.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(visible)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0)

    def mark(self) -> Mark:
        """Read the counter of millijoules now."""
        return Mark.now({"gpu": int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))})

    def joules(self, before: Mark, after: Mark) -> float:
        """Return the counter's growth."""
        grown = after.counters["gpu"] - before.counters["gpu"]
        if grown < 0:
            raise NoEnergy("counter_wrapped: the driver was loaded anew")
        return grown / 1e3
