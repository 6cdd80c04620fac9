"""What this host is (facts, hashed) and what state it is in (recorded, never hashed)."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.measure import cpus
from harness.measure.cpus import read_text

HASHED = (
    "cpu_vendor", "cpu_family", "cpu_model", "cpu_model_name", "cpu_stepping", "cpu_microcode", "cores_logical",
    "cores_physical", "ram_bytes", "kernel", "machine", "hypervisor", "gpu_uuid",
)  # fmt: skip
_CPUINFO = {
    "cpu_vendor": "vendor_id", "cpu_family": "cpu family", "cpu_model": "model", "cpu_model_name": "model name",
    "cpu_stepping": "stepping", "cpu_microcode": "microcode", "cpu_flags": "flags",
}  # fmt: skip
_FREQUENCY = "/sys/devices/system/cpu/cpu0/cpufreq"
_FACT_FILES = {
    "product_name": "/sys/class/dmi/id/product_name",
    "bios_version": "/sys/class/dmi/id/bios_version",
    "clocksource": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "smt": "/sys/devices/system/cpu/smt/control",
    "numa_nodes": "/sys/devices/system/node/online",
    "governor": f"{_FREQUENCY}/scaling_governor",
    "frequency_driver": f"{_FREQUENCY}/scaling_driver",
    "frequency_min_khz": f"{_FREQUENCY}/cpuinfo_min_freq",
    "frequency_max_khz": f"{_FREQUENCY}/cpuinfo_max_freq",
    "energy_preference": f"{_FREQUENCY}/energy_performance_preference",
    "no_turbo": "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "aslr": "/proc/sys/kernel/randomize_va_space",
    "transparent_hugepages": "/sys/kernel/mm/transparent_hugepage/enabled",
    "ksm": "/sys/kernel/mm/ksm/run",
    "swappiness": "/proc/sys/vm/swappiness",
    "gpu_driver": "/proc/driver/nvidia/version",
}
_STATE_FILES = {
    "load": "/proc/loadavg",
    "frequency_khz": f"{_FREQUENCY}/scaling_cur_freq",
    "pressure_cpu": "/proc/pressure/cpu",
    "pressure_memory": "/proc/pressure/memory",
    "pressure_io": "/proc/pressure/io",
}


@dataclass(frozen=True)
class Fingerprint:
    """One host.

    Attributes:
        host_id: Hash of the stable facts alone.
        facts: What does not change without a reboot or a new part; a value or "not available: reason".
        state: What changes: load, pressure, temperatures, frequency.
    """

    host_id: str
    facts: Mapping[str, str]
    state: Mapping[str, str]


def not_available(reason: str) -> str:
    """Return the words for a field that cannot be read."""
    return f"not available: {reason}"


def fingerprint(*, fresh: bool = False) -> Fingerprint:
    """Read this host; fields that cannot be read say why, also off Linux.

    Args:
        fresh: Read the facts anew, though this process knows them: a host can change while a run lasts.
    """
    if fresh:
        facts.cache_clear()
    found = facts()
    hashed = codec.sha256({name: found[name] for name in HASHED})
    return Fingerprint(hashed[:16], found, state())


@functools.cache
def facts() -> Mapping[str, str]:
    """Read the stable facts, once per process."""
    cpu = _cpuinfo()
    found = {name: cpu.get(field, not_available("no such field in /proc/cpuinfo")) for name, field in _CPUINFO.items()}
    if found["cpu_model_name"].startswith("not available") and platform.processor():
        found["cpu_model_name"] = platform.processor()
    found |= {
        "cores_logical": str(os.cpu_count() or not_available("the platform does not count CPUs")),
        "cores_physical": _field(_physical),
        "ram_bytes": _field(_ram),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "hypervisor": _hypervisor(cpu),
        "gpu_uuid": _field(lambda: _gpu("GPU UUID")),
        "gpu_name": _field(lambda: _gpu("Model")),
        "affinity": ",".join(map(str, cpus.allowed())),
        "cpu_quota": str(cpus.quota() or "none"),
        "memory_limit": _field(_memory_limit),
        "cgroup": _cgroup(),
        "caches": _field(_caches),
        "mitigations": _field(_mitigations),
    }
    found |= {name: _file(path) for name, path in _FACT_FILES.items()}
    # only its hash: a changed boot line shows, and what a host's owner wrote into it is not published
    return found | {"kernel_cmdline_sha256": hashlib.sha256(_file("/proc/cmdline").encode()).hexdigest()}


def state() -> Mapping[str, str]:
    """Read what changes while the host runs."""
    found = {name: _file(path) for name, path in _STATE_FILES.items()}
    found["temperatures_millicelsius"] = _field(_temperatures)
    found["memory_available_kib"] = _field(lambda: _meminfo("MemAvailable"))
    return found


def _file(path: str) -> str:
    try:
        return " ".join(Path(path).read_text(errors="replace").split()) or not_available(f"{path} is empty")
    except OSError as error:
        return not_available(f"{path}: {error.strerror or type(error).__name__}")


def _field(read: Callable[[], str]) -> str:
    try:
        return read() or not_available("nothing is reported")
    except (OSError, LookupError, ValueError) as error:
        return not_available(str(error) or type(error).__name__)


def _cpuinfo() -> dict[str, str]:
    lines = (read_text(Path("/proc/cpuinfo")) or "").split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


def _physical() -> str:
    """Count physical cores of the whole host, not only those that this process may use."""
    groups = {cpus.siblings(cpu) for cpu in range(os.cpu_count() or 1)}
    return str(len(groups))


def _ram() -> str:
    return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _meminfo(name: str) -> str:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise LookupError(f"no {name} in /proc/meminfo")


def _hypervisor(cpu: Mapping[str, str]) -> str:
    if sys.platform != "linux":
        return not_available("not Linux")
    kind = read_text(Path("/sys/hypervisor/type"))
    vendor = read_text(Path("/sys/class/dmi/id/sys_vendor"))
    if "hypervisor" not in cpu.get("flags", "").split() and kind is None:
        return "none"
    return kind or vendor or "yes, unnamed"


def _gpu(name: str) -> str:
    values = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(errors="replace").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == name:
                values.append(value.strip())
    if not values:
        raise LookupError("no NVIDIA driver lists a GPU")
    return ", ".join(values)


def _cgroup() -> str:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "2"
    return "1" if cpus.cgroup_path("cpu") else "none"


def _memory_limit() -> str:
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        folder = cpus.cgroup_path(controller)
        text = read_text(folder / name) if folder else None
        if text:
            return text
    raise LookupError("no memory cgroup")


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (read_text(index / name) or "?" for name in ("level", "type", "size"))
        found.append(f"L{level} {kind} {size}")
    return ", ".join(found)


def _mitigations() -> str:
    files = sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
    return "; ".join(f"{file.name}: {read_text(file) or 'unreadable'}" for file in files)


def _temperatures() -> str:
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*"))
    pairs = [(read_text(zone / "type"), read_text(zone / "temp")) for zone in zones]
    return ", ".join(f"{kind} {value}" for kind, value in pairs if value)
