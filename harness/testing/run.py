"""Run the checks of a plugin: prepare, call its functions in processes of their own, judge what was seen."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import PlanError
from harness.measure.slots import OnWait, building
from harness.testing import on_bug, on_steps, on_target
from harness.testing.bench import DEFAULT, Bench, Settings
from harness.testing.declared import judge_offer, judge_plugin
from harness.testing.material import samples
from harness.testing.results import Judge, Report, Result, with_gaps

if TYPE_CHECKING:
    from harness.plugins import Registry

KINDS = ("workload", "method", "exporter", "oracle", "target", "bug")
log = logging.getLogger("harness")


def check_plugin(
    registry: Registry, name: str, settings: Settings = DEFAULT, *, on_wait: OnWait = log.warning
) -> Report:
    """Run every check of a plugin and its offers.

    Args:
        registry: What is installed.
        name: Entry point, module or distribution of the plugin.
        settings: How thorough.
        on_wait: Told for whom this waits, while someone measures on this host.

    Raises:
        PlanError: Nothing installed has this name, or no test model has a layer kind that is asked for.
    """
    plugin = find(registry, name)
    info = next(item for item in registry.plugins if item.name == plugin)
    results = _merged(judge_plugin(info, registry).results)
    if any(result.check == "loads" and result.state == "failed" for result in results):
        settings = replace(settings, declared_only=True)  # what it needs of itself may be missing
    for kind in KINDS:
        for offered in info.offers.get(kind, ()):
            results += check_offer(registry, kind, offered, settings, on_wait=on_wait)
    return Report(plugin, tuple(results))


def find(registry: Registry, name: str) -> str:
    """Return the entry point that is meant by its own name, its module or its distribution.

    Raises:
        PlanError: There is none.
    """
    wanted = name.replace("_", "-").lower()
    for info in registry.plugins:
        names = {info.name, info.module.partition(".")[0], info.distribution}
        if wanted in {item.replace("_", "-").lower() for item in names}:
            return info.name
    known = ", ".join(info.name for info in registry.plugins)
    raise PlanError(f"no installed plugin is called {name!r}", hint=f"install it (pip install -e .); there are {known}")


def check_offer(
    registry: Registry, kind: str, name: str, settings: Settings = DEFAULT, *, on_wait: OnWait = log.warning
) -> list[Result]:
    """Run every check of one offer.

    Raises:
        PlanError: There is no such offer, or no test model has a layer kind that is asked for.
    """
    offer = registry.find(kind, name)
    if not settings.declared_only:
        _known_samples(registry, settings)
    judge = Judge(f"{kind} {name!r}")
    judge_offer(judge, kind, offer)
    sound = all(result.state != "failed" for result in judge.results if result.check in {"params", "declarations"})
    if sound and not settings.declared_only:
        with tempfile.TemporaryDirectory(prefix="harness-kit-") as folder, building(on_wait):
            bench = Bench(registry, settings, Path(folder))
            _CHECKERS[kind](bench, judge, name)
    return with_gaps(_merged(judge.results), getattr(offer.spec, "known_gaps", {}))


def _known_samples(registry: Registry, settings: Settings) -> None:
    installed = samples(registry)
    unknown = sorted(set(settings.samples or ()) - set(installed))
    if unknown:
        known = ", ".join(sorted(installed)) or "none: install compression-harness[torch]"
        raise PlanError(f"no test model has the layer kind {', '.join(unknown)}", hint=f"there are {known}")


def _merged(results: Iterable[Result]) -> list[Result]:
    """Return one result per check and test model: a failure stands before a skip, and that before a pass."""
    rank = {"failed": 0, "skipped": 2, "passed": 1, "gap": 0}
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.key, []).append(result)
    merged = []
    for same in found.values():
        failed = [result for result in same if result.state == "failed"]
        merged += list(dict.fromkeys(failed)) or [min(same, key=lambda result: rank[result.state])]
    return merged


_CHECKERS: Mapping[str, Callable[[Bench, Judge, str], None]] = {
    "workload": on_steps.check_workload,
    "method": on_steps.check_method,
    "exporter": on_steps.check_exporter,
    "oracle": on_steps.check_oracle,
    "target": on_target.check_target,
    "bug": on_bug.check_bug,
}
