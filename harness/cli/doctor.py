"""``harness doctor``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import install_hint, json_option, print_facts, print_json, print_table
from harness.isa import int8_dot_product

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.measure.counters import Disturbance
    from harness.plan import TargetState
    from harness.plugins import Registry

WATCH_S = 1.0
# Shares of the time watched above which a reading is worth a warning (MEASUREMENT.md section 1.8).
STEAL, PRESSURE, BUSY = 0.02, 0.10, 0.25
SHOWN = (
    "cpu_model_name", "cores_physical", "cores_logical", "affinity", "smt", "caches", "ram_bytes", "memory_limit",
    "cpu_quota", "hypervisor", "kernel", "governor", "frequency_max_khz", "no_turbo", "gpu_name", "gpu_driver",
)  # fmt: skip
# As the kernel names them: vector width, half precision, int8 dot products, bfloat16, tiles; then Arm's.
FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
ABSENT = "not available"  # how a fact begins that the host does not tell


@click.command("doctor")
@json_option
@click.pass_obj
def command(app: App, *, as_json: bool) -> None:
    """Say what is missing here and what will disturb measurements."""
    from harness.cli.conflicts import Installed
    from harness.cli.targets import probe
    from harness.measure.host import fingerprint

    click.echo("probing targets and watching the host", err=True)
    registry = app.registry()
    installable = (name for name, offer in registry.targets.items() if offer.spec.default or offer.spec.extra)
    states = probe(registry, tuple(installable), {})
    host = fingerprint()
    found = {
        "host": host,
        "extras": extras(registry, states),
        "instructions": instructions(states),
        "clashes": Installed().clashes(),
        "plugins": plugin_problems(registry),
        "noise": noise(host.facts),
        "energy": energy(),
    }
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    facts = found["host"].facts
    echo(f"host {found['host'].host_id}\n")
    print_facts([("cpu_features", features(facts)), *((name, facts.get(name, "")) for name in SHOWN)])
    rows = [(item["extra"], item["for"], item["state"], item["install"]) for item in found["extras"]]
    print_table(("extra", "for", "here", "to install"), rows)
    for name, text in found["instructions"].items():
        echo(f"{name} computes with: {text}")
    for line in found["clashes"]:
        echo(f"clash: {line}")
    if not found["clashes"]:
        echo("no clashes: every installed version is one that is asked for")
    for line in found["plugins"]:
        echo(f"plugin problem: {line}")
    for name, text in found["energy"].items():
        echo(f"energy, {name}: {text}")
    for line in found["noise"] or ["nothing was seen that would disturb a measurement"]:
        echo(f"noise: {line}")


def energy() -> dict[str, str]:
    """Return what 'harness bench --energy' reads here by itself, or why it cannot."""
    from harness.measure.sensors import NoEnergy, Nvml, Rapl

    found: dict[str, str] = {}
    for name, sensor in (("CPU", Rapl), ("GPU", Nvml)):
        try:
            found[name] = f"{sensor().source} (level {sensor.level})"
        except NoEnergy as missing:
            found[name] = f"not available: {missing.reason}"
    return found


def features(facts: Mapping[str, str]) -> str:
    """Return the CPU features that decide how fast compressed models run."""
    flags = set(facts.get("cpu_flags", "").split())
    return ", ".join(name for name in FEATURES if name in flags) or "none that is known to matter"


def instructions(states: Mapping[str, TargetState]) -> dict[str, str]:
    """Return what each target that runs here can use of this CPU or GPU, and what the evidence is."""
    found: dict[str, str] = {}
    for name, state in states.items():
        capable = state.capabilities
        if state.availability.available and capable is not None and capable.isa:
            dot = "" if capable.isa[0].startswith("sm_") else f"; int8: {int8_dot_product(capable.isa)}"
            evidence = f" ({known})" if (known := capable.evidence.get("isa")) else ""
            found[name] = ", ".join(capable.isa) + dot + evidence
    return found


def plugin_problems(registry: Registry) -> list[str]:
    """Return one line for each thing that a plugin offers and that is not used."""
    return [f"{problem.plugin} ({problem.distribution}): {problem.message}" for problem in registry.problems]


def extras(registry: Registry, states: Mapping[str, TargetState]) -> list[dict[str, str]]:
    """Return what each extra is for and whether it is here: targets by probing, exporters by what is installed."""
    rows = [
        _target_row(name, offer.spec.extra, states[name]) for name, offer in registry.targets.items() if name in states
    ]
    rows += [_exporter_row(name, offer.spec.extra) for name, offer in registry.exporters.items() if offer.spec.extra]
    return rows


def _target_row(name: str, extra: str, state: TargetState) -> dict[str, str]:
    found = state.availability
    here = f"ok, {found.runtime} {found.version}".rstrip(", ") if found.available else f"missing: {found.reason}"
    install = "" if found.available else found.hint or install_hint(extra)
    return {"extra": extra or "-", "for": f"target {name}", "state": here, "install": install}


def _exporter_row(name: str, extra: str) -> dict[str, str]:
    lacking = missing(extra)
    here = f"missing: {', '.join(lacking)}" if lacking else "ok"
    return {"extra": extra, "for": f"exporter {name}", "state": here, "install": install_hint(extra) if lacking else ""}


def missing(extra: str, distribution: str = "compression-harness") -> list[str]:
    """Return the distributions that an extra needs and that are not installed."""
    from harness.build.versions import MISSING, required, version

    return [name for name in required(distribution, extra) if name != distribution and version(name) == MISSING]


def noise(facts: Mapping[str, str]) -> list[str]:
    """Watch the host for a second and return what will disturb measurements here."""
    from harness.measure import counters

    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    before = counters.read(cpus)
    time.sleep(WATCH_S)
    seen = counters.between(before, counters.read(cpus))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return disturbances(seen, load, len(cpus) or os.cpu_count() or 1, facts)


def disturbances(seen: Disturbance, load: float | None, cores: int, facts: Mapping[str, str]) -> list[str]:
    """Put readings into words; one that is fine is left out, one that the host does not give is named."""
    found: list[str] = []
    if load is not None and load > BUSY * cores:
        found.append(
            f"load {load:.2f} on {cores} cores: other work is running; ratios stay paired but their intervals widen"
        )
    if seen.steal is not None and seen.steal > STEAL:
        found.append(f"steal {seen.steal:.1%}: neighbours on the same machine take time; measure at a quieter hour")
    if seen.psi_cpu is not None and seen.psi_cpu > PRESSURE:
        found.append(f"cpu pressure {seen.psi_cpu:.1%}: something waited for a core for that share of the time")
    if seen.throttled:
        found.append(f"the cgroup throttled {seen.throttled} times within a second: raise its cpu quota")
    return found + _standing(facts)


def _standing(facts: Mapping[str, str]) -> list[str]:
    """Return what disturbs here at any hour."""
    found: list[str] = []
    if facts.get("smt") == "on":
        found.append("two threads share each core (smt on): a neighbour thread halves a core; pin to one per core")
    if facts.get("no_turbo") == "0":
        found.append("turbo is on: the clock follows temperature and the number of busy cores")
    if facts.get("cpu_quota", "none") not in {"none", ""} and not facts["cpu_quota"].startswith(ABSENT):
        found.append(f"a cgroup allows {facts['cpu_quota']} CPUs: bursts beyond that are stopped until the next period")
    hypervisor, governor = facts.get("hypervisor", ABSENT), facts.get("governor", ABSENT)
    if hypervisor != "none" and not hypervisor.startswith(ABSENT):
        found.append(f"virtualised ({hypervisor}): the clock and the neighbours cannot be seen from inside")
    if governor.startswith(ABSENT):
        found.append("no frequency governor can be read: changes of the clock cannot be excluded")
    elif governor != "performance":
        found.append(f"frequency governor {governor!r}: 'performance' keeps the clock steady")
    return found
