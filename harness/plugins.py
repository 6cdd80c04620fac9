"""Find plugins and collect what they offer: the only module that talks to pluggy's manager."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy

from harness import environment, hookspecs, params
from harness.errors import PlanError, PluginError
from harness.inspection import InspectorSpec
from harness.params import suggest
from harness.specs import ExporterSpec, MethodSpec, Offer, OracleSpec, TargetSpec, WorkloadSpec
from harness.types import Record

GROUP = "harness"
S = TypeVar("S")
log = logging.getLogger("harness")


@dataclass(frozen=True)
class Problem:
    """Why a plugin, or one thing that it offers, is not used."""

    plugin: str
    distribution: str
    message: str


@dataclass(frozen=True)
class PluginInfo:
    """One plugin as installed.

    Attributes:
        offers: Kind ("method", "target" …) -> names.
        state: "loaded", "blocked", "skipped" (another host process needs only some) or "broken".
    """

    name: str
    module: str
    distribution: str
    version: str
    state: str
    offers: Mapping[str, tuple[str, ...]]
    message: str = ""


@dataclass(frozen=True)
class Registry:
    """All that was offered, by name; frozen."""

    workloads: Mapping[str, Offer[WorkloadSpec[Any]]]
    methods: Mapping[str, Offer[MethodSpec[Any]]]
    exporters: Mapping[str, Offer[ExporterSpec]]
    oracles: Mapping[str, Offer[OracleSpec]]
    targets: Mapping[str, Offer[TargetSpec[Any]]]
    plugins: tuple[PluginInfo, ...]
    problems: tuple[Problem, ...]
    record_written: Callable[[Record], None]
    inspectors: Mapping[str, Offer[InspectorSpec]] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Offer[Any]:
        """Return an offer by kind ("workload", "method", "exporter", "oracle", "target", "inspector") and name.

        Raises:
            PluginError: Its plugin is broken or blocked.
            PlanError: Nothing has this name; the nearest is suggested.
        """
        offers: Mapping[str, Offer[Any]] = getattr(self, f"{kind}s")
        if name in offers:
            return offers[name]
        for problem in self.problems:
            if name == problem.plugin or f"'{name}'" in problem.message:
                raise PluginError(f"{kind} {name!r} is not available: {problem.message}")
        raise PlanError(f"no {kind} is called {name!r}", hint=suggest(name, offers, kind))


_CALLS = (
    "compress",
    "export",
    "probe",
    "capabilities",
    "lower",
    "open",
    "fit",
    "split",
    "inputs",
    "inspect",
)  # fields of specs
_KINDS: Mapping[str, tuple[str, type]] = {
    "harness_workloads": ("workload", WorkloadSpec),
    "harness_methods": ("method", MethodSpec),
    "harness_exporters": ("exporter", ExporterSpec),
    "harness_oracles": ("oracle", OracleSpec),
    "harness_targets": ("target", TargetSpec),
    "harness_inspectors": ("inspector", InspectorSpec),
}


@dataclass(frozen=True)
class _Entry:
    name: str
    module: str
    distribution: str
    version: str
    load: Callable[[], object]


def _entries() -> list[_Entry]:
    seen: dict[tuple[str, str], _Entry] = {}
    for dist in importlib.metadata.distributions():
        for point in dist.entry_points:
            if point.group == GROUP:
                entry = _Entry(point.name, point.value, dist.name, dist.version, point.load)
                seen.setdefault((point.name, dist.name), entry)  # an editable install may be listed twice
    return sorted(seen.values(), key=lambda entry: (entry.name, entry.distribution))


def _source_sha256(module: object) -> str:
    """Hash a plugin's own Python files, so that an edited plugin rebuilds what it built."""
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for item in files:
        digest.update(item.name.encode() + b"\0" + item.read_bytes())
    return digest.hexdigest()


def _check(spec: object, kind: type, hook: str) -> str | None:
    if not isinstance(spec, kind):
        return f"{hook} offers {type(spec).__name__} where {kind.__name__} is due"
    name = getattr(spec, "name", "")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name):
        return f"{hook} offers the name {name!r}; letters, digits, '-', '_' and '.' are allowed"
    for key, value in vars(spec).items():
        if key in _CALLS and not callable(value):
            return f"{kind.__name__} {name!r}: {key} is not callable"
    patterns = getattr(spec, "environment", ())
    if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
        return f"{kind.__name__} {name!r}: environment is not a tuple of names"
    declared = getattr(spec, "params", None)
    if declared is not None:
        wrong = params.problem(declared)
        if wrong:
            return f"{kind.__name__} {name!r}: {wrong}"
    return None


class _Loader:
    """Load plugins one by one, so that each problem has one plugin to blame."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.problems: list[Problem] = []
        self.infos: list[PluginInfo] = []
        self.offers: dict[str, dict[str, Offer[Any]]] = defaultdict(dict)

    def blame(self, entry: _Entry, message: str) -> None:
        self.problems.append(Problem(entry.name, entry.distribution, message))

    def load(self, entry: _Entry) -> None:
        try:
            module = entry.load()
        except Exception as error:  # noqa: BLE001  a broken plugin may raise anything; it costs itself alone
            message = f"{type(error).__name__} on import: {error}"
            self.blame(entry, message)
            self.note(entry, "broken", {}, message)
            return
        unknown = [name for name in dir(module) if self._is_impl(module, name) and name not in vars(hookspecs)]
        if unknown:
            hint = suggest(unknown[0], [*_KINDS, "harness_record_written"], "hook")
            message = f"unknown hook {unknown[0]!r}; {hint}"
            self.blame(entry, message)
            self.note(entry, "broken", {}, message)
            return
        try:
            self.manager.register(module, entry.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.blame(entry, str(error).replace("\n", " "))
            self.note(entry, "broken", {}, str(error).replace("\n", " "))
            return
        offered = self.collect(entry, module)
        me = (entry.name, entry.distribution)
        bad = [problem.message for problem in self.problems if (problem.plugin, problem.distribution) == me]
        self.note(entry, "broken" if bad and not offered else "loaded", offered, "; ".join(bad))

    @staticmethod
    def _is_impl(module: object, name: str) -> bool:
        return hasattr(getattr(module, name), f"{GROUP}_impl")

    def collect(self, entry: _Entry, module: object) -> dict[str, tuple[str, ...]]:
        source = _source_sha256(module)
        offered: dict[str, list[str]] = defaultdict(list)
        for hook, (kind, spec_type) in _KINDS.items():
            function = getattr(module, hook, None)
            if function is None:
                continue
            for spec in self._specs(entry, hook, function):
                wrong = _check(spec, spec_type, hook) or self._clash(kind, spec, entry)
                if wrong:
                    self.blame(entry, wrong)
                    continue
                self.offers[kind][spec.name] = Offer(spec, entry.name, entry.distribution, entry.version, source)
                offered[kind].append(spec.name)
        return {kind: tuple(sorted(names)) for kind, names in offered.items()}

    def _specs(self, entry: _Entry, hook: str, function: Callable[[], Iterable[Any]]) -> Iterator[Any]:
        try:
            yield from function()
        except Exception as error:  # noqa: BLE001  as above: also a generator hook may raise half-way
            self.blame(entry, f"{hook} raised {type(error).__name__}: {error}")

    def _clash(self, kind: str, spec: Any, entry: _Entry) -> str | None:
        other = self.offers[kind].get(spec.name)
        if other is None:
            return None
        return (
            f"{kind} '{spec.name}' is offered by {other.distribution} ({other.plugin}) and by {entry.distribution} "
            f"({entry.name}); the first is used, block one with -p no:{entry.name}"
        )

    def note(self, entry: _Entry, state: str, offers: Mapping[str, tuple[str, ...]], message: str = "") -> None:
        info = PluginInfo(entry.name, entry.module, entry.distribution, entry.version, state, offers, message)
        self.infos.append(info)


def _duplicates(entries: list[_Entry]) -> dict[str, list[_Entry]]:
    by_name: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry.name].append(entry)
    return {name: same for name, same in by_name.items() if len(same) > 1}


def load_registry(*, block: Collection[str] = (), only: Collection[str] | None = None) -> Registry:
    """Import the installed plugins and collect their offers.

    Args:
        block: Entry-point names that are not imported.
        only: Import just these entry points (a worker needs one or two); ``None`` for all.
    """
    loader = _Loader()
    entries = _entries()
    doubled = _duplicates(entries)
    for entry in entries:
        if entry.name in block:
            loader.note(entry, "blocked", {}, f"blocked by -p no:{entry.name}")
        elif only is not None and entry.name not in only:
            loader.note(entry, "skipped", {})
        elif entry.name in doubled:
            names = " and ".join(other.distribution for other in doubled[entry.name])
            message = f"entry point '{entry.name}' is declared by {names}; uninstall one"
            loader.blame(entry, message)
            loader.note(entry, "broken", {}, message)
        else:
            loader.load(entry)
    unknown = sorted(set(block) - {entry.name for entry in entries})
    if unknown:
        known = [entry.name for entry in entries]
        raise PlanError(f"no plugin is called {unknown[0]!r}", hint=suggest(unknown[0], known, "plugin"))
    return _freeze(loader)


def _freeze(loader: _Loader) -> Registry:
    def record_written(record: Record) -> None:
        for impl in loader.manager.hook.harness_record_written.get_hookimpls():
            try:
                impl.function(record)
            except Exception as error:  # noqa: BLE001  an event must not cost the run
                kind = type(error).__name__
                log.warning("plugin %s: harness_record_written raised %s: %s", impl.plugin_name, kind, error)

    def frozen(kind: str) -> Mapping[str, Offer[Any]]:
        return MappingProxyType(dict(sorted(loader.offers[kind].items())))

    environment.declare(name for offer in loader.offers["target"].values() for name in offer.spec.environment)
    return Registry(
        frozen("workload"),
        frozen("method"),
        frozen("exporter"),
        frozen("oracle"),
        frozen("target"),
        tuple(loader.infos),
        tuple(loader.problems),
        record_written,
        frozen("inspector"),
    )


__all__ = ["GROUP", "PluginInfo", "Problem", "Registry", "load_registry"]
