"""``harness doctor``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import install_hint, json_option, print_facts, print_json, print_table

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.measure.counters import Disturbance
    from harness.plan import TargetState
    from harness.plugins import Registry

WATCH_S = 1.0
# Shares of the time watched above which a reading is worth a warning (MEASUREMENT.md section 1.8).
STEAL, PRESSURE, BUSY = 0.02, 0.10, 0.25


@click.command("doctor")
@json_option
@click.pass_obj
def command(app: App, *, as_json: bool) -> None:
    """Say what is missing here and what will disturb measurements."""
    from harness.cli.targets import probe
    from harness.measure.host import fingerprint

    click.echo("probing targets and watching the host", err=True)
    registry = app.registry()
    states = probe(registry, tuple(registry.targets), {})
    print_now = {"host": fingerprint(), "extras": extras(registry, states), "noise": noise()}
    if as_json:
        print_json({**print_now, "plugins": plugin_problems(registry)})
    else:
        _show(registry, print_now)


def _show(registry: Registry, found: dict[str, Any]) -> None:
    host = found["host"]
    click.echo(f"host {host.host_id}\n")
    print_facts(sorted(host.facts.items()))
    click.echo("\nnow\n")
    print_facts(sorted(host.state.items()))
    rows = [(item["extra"], item["for"], item["state"], item["install"]) for item in found["extras"]]
    print_table(("extra", "for", "here", "to install"), rows)
    for line in plugin_problems(registry):
        click.echo(f"plugin problem: {line}")
    for line in found["noise"]:
        click.echo(f"noise: {line}")
    if not found["noise"]:
        click.echo("noise: nothing was seen that would disturb a measurement")


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


def noise() -> list[str]:
    """Watch the host for a second and return what will disturb measurements here."""
    from harness.measure import counters

    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    before = counters.read(cpus)
    time.sleep(WATCH_S)
    seen = counters.between(before, counters.read(cpus))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return disturbances(seen, load, len(cpus) or os.cpu_count() or 1, governor(), virtualised())


def disturbances(
    seen: Disturbance, load: float | None, cores: int, scaling: str | None, virtual: bool | None
) -> list[str]:
    """Put readings into words; a reading that is fine is left out, one that the host does not give is said."""
    found: list[str] = []
    if load is not None and load > BUSY * cores:
        found.append(
            f"load {load:.2f} on {cores} cores: other work is running; wait for it, ratios stay paired but widen"
        )
    if seen.steal is not None and seen.steal > STEAL:
        found.append(f"steal {seen.steal:.1%}: neighbours on the same machine take time; measure at a quieter hour")
    if seen.psi_cpu is not None and seen.psi_cpu > PRESSURE:
        found.append(f"cpu pressure {seen.psi_cpu:.1%}: something waited for a core for that share of the time")
    if seen.throttled:
        found.append(f"the cgroup throttled {seen.throttled} times: raise its cpu quota")
    if virtual:
        found.append("virtualised: the clock frequency and the neighbours cannot be seen from inside")
    if scaling is None:
        found.append("no frequency governor can be read: frequency changes cannot be excluded")
    elif scaling != "performance":
        found.append(f"frequency governor {scaling!r}: 'performance' keeps the clock steady")
    return found


def governor() -> str | None:
    """Return the frequency governor of the first core, where there is one."""
    from pathlib import Path

    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    except OSError:
        return None


def virtualised() -> bool | None:
    """Return whether the CPU says that it is a virtual one; ``None`` where it cannot be read."""
    from pathlib import Path

    try:
        return " hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
