"""What the build tests share: the toy plugin installed in a folder of its own, and a plan over it."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.build import BuildEvent, Cache, build_plan, versions
from harness.plan import Request, TargetState, make_plan
from harness.plugins import load_registry
from harness.types import Availability, Capabilities

SOURCE = Path(__file__).parent / "build_toy"
CAPABILITIES = Capabilities("1", {"float32": "native", "int8": "native"}, channel_multiple=8, isa=("toy512",))
AVAILABLE = TargetState(Availability(True), CAPABILITIES)


@dataclass
class Toy:
    """The toy plugin as installed, with a cache and a log of what really ran."""

    site: Path
    cache: Cache
    log: Path
    events: list[BuildEvent] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.site / "toy_plugin" / "__init__.py"

    def ran(self, *, sessions: bool = False) -> list[str]:
        """Return what was run since the last call: the steps, or what the sessions were given."""
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if line.startswith("run ") == sessions]

    def registry(self):
        forget()
        return load_registry(only={"toy"})

    def plan(self, *methods, targets=("toy-runtime",), states=None, **more):
        registry = self.registry()
        request = Request(workloads=more.pop("workloads", ("toy-task",)), methods=methods, targets=targets, **more)
        states = states or dict.fromkeys(targets, AVAILABLE)
        return make_plan(request, registry, states, 2), registry, states

    def build(self, *methods, workers=2, slot=None, timeout_s=60.0, **more):
        """Build; return results by method text, or by (method, target) where there are several targets."""
        plan, registry, states = self.plan(*methods, **more)
        options = {"slot": slot} if slot else {}
        results = build_plan(
            plan,
            self.cache,
            registry=registry,
            states=states,
            workers=workers,
            on_event=self.events.append,
            timeout_s=timeout_s,
            **options,
        )
        several = len(more.get("targets", ())) > 1
        return {
            (cell.labels["method"], cell.labels["target"]) if several else cell.labels["method"]: results[cell.cell_id]
            for cell in plan.cells
        }


def forget():
    """Make this process see the plugin's source anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_plugin"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    for function in (versions.version, versions.required, versions.source_sha256):
        function.cache_clear()


def install(folder: Path, monkeypatch) -> Toy:
    site = folder / "site"
    shutil.copytree(SOURCE, site, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(site))
    log = folder / "ran.log"
    monkeypatch.setenv("HARNESS_TOY_LOG", str(log))
    return Toy(site, Cache(folder / "cache"), log)
