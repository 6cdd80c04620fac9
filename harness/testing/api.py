"""The kit's functions for tests: each loads the installed plugins and checks one offer, or one plugin."""

from __future__ import annotations

from harness.plugins import Registry, load_registry
from harness.testing import run
from harness.testing.bench import DEFAULT, Settings
from harness.testing.results import Report


def _checked(kind: str, name: str, settings: Settings) -> Report:
    registry = load_registry()
    return Report(registry.find(kind, name).plugin, tuple(run.check_offer(registry, kind, name, settings)))


def check_method(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed method on the test models that it takes.

    Args:
        name: As users type it.
        settings: How thorough; ``Settings(quick=True)`` takes one test model.

    Returns:
        All results; ``raise_failures()`` fails the test.

    Raises:
        PlanError: No installed method has this name.
    """
    return _checked("method", name, settings)


def check_target(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed target: lowering and sessions on every test model, in every precision that it lists.

    Args:
        name: As users type it.
        settings: How thorough; ``Settings(quick=True)`` takes one test model in float32.

    Returns:
        All results; where the target is not available here, its functions are skipped with the reason.

    Raises:
        PlanError: No installed target has this name.
    """
    return _checked("target", name, settings)


def check_exporter(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed exporter on the test models that it takes.

    Args:
        name: Of the exporter.
        settings: How thorough.

    Raises:
        PlanError: No installed exporter has this name.
    """
    return _checked("exporter", name, settings)


def check_oracle(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed oracle: its answers on the test models of its format.

    Args:
        name: Of the oracle.
        settings: How thorough.

    Raises:
        PlanError: No installed oracle has this name.
    """
    return _checked("oracle", name, settings)


def check_workload(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed workload: its splits, its training (for one epoch where it has such a parameter), its scores.

    Args:
        name: As users type it.
        settings: How thorough.

    Raises:
        PlanError: No installed workload has this name.
    """
    return _checked("workload", name, settings)


def check_plugin(name: str, settings: Settings = DEFAULT) -> Report:
    """Check an installed plugin with all that it offers: what ``harness plugins check`` does.

    Args:
        name: Entry point, module or distribution.
        settings: How thorough.

    Raises:
        PlanError: Nothing installed has this name.
    """
    return run.check_plugin(load_registry(), name, settings)


def offers(registry: Registry | None = None) -> list[tuple[str, str]]:
    """Return kind and name of every installed offer, to parametrise a test with."""
    found = registry or load_registry()
    return [(kind, name) for kind in run.KINDS for name in getattr(found, f"{kind}s")]
