"""Find plugins and collect what they offer: the only module that talks to pluggy's manager."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from harness import environment, faults, hookspecs
from harness.errors import PlanError, PluginError
from harness.explain import REASON, line, raised
from harness.inspection import InspectorSpec
from harness.offers import KINDS, wrong_with
from harness.params import suggest
from harness.runtime_bugs import RuntimeBug
from harness.specs import ExporterSpec, MethodSpec, Offer, OracleSpec, TargetSpec, WorkloadSpec
from harness.types import Record

GROUP = "harness"
TOLD = 5  # problems of a plugin that are told while it is loaded
MOST = 1000  # offers of one hook; a generator without end is cut there
OWN = "compression-harness"  # the distribution of what is built in
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
    """All that was offered, by name; frozen.

    Attributes:
        contested: Kind -> name -> its offers, of names that several plugins offer and nobody chose from: none is used.
            Kind "plugin" is of entry points that several distributions declare.
        chosen: Contested name -> plugin that was chosen for it.
    """

    workloads: Mapping[str, Offer[WorkloadSpec[Any]]]
    methods: Mapping[str, Offer[MethodSpec[Any]]]
    exporters: Mapping[str, Offer[ExporterSpec]]
    oracles: Mapping[str, Offer[OracleSpec]]
    targets: Mapping[str, Offer[TargetSpec[Any]]]
    plugins: tuple[PluginInfo, ...]
    problems: tuple[Problem, ...]
    record_written: Callable[[Record], None]
    inspectors: Mapping[str, Offer[InspectorSpec]] = field(default_factory=dict)
    contested: Mapping[str, Mapping[str, tuple[Offer[Any], ...]]] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    bugs: Mapping[str, Offer[RuntimeBug]] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Offer[Any]:
        """Return an offer by kind ("workload", "method", "exporter", "oracle", "target", "inspector", "bug") and name.

        Raises:
            PluginError: Its plugin is broken or blocked, or several offer it and none was chosen.
            PlanError: Nothing has this name; the nearest is suggested.
        """
        offers: Mapping[str, Offer[Any]] = getattr(self, f"{kind}s")
        if name in offers:
            return offers[name]
        if name in self.contested.get(kind, ()):
            said, hint = _contest(kind, name, self.contested[kind][name])
            raise PluginError(said, hint=hint)
        for problem in self.problems:
            if name == problem.plugin or f"'{name}'" in problem.message:
                raise PluginError(f"{kind} {name!r} is not available: {problem.message}")
        raise PlanError(f"no {kind} is called {name!r}", hint=suggest(name, offers, kind))

    def settled(self, kind: str, matters: Callable[[Any], bool] = lambda _spec: True) -> None:
        """Refuse to go on where names of a kind are contested.

        Args:
            kind: As ``find`` takes it.
            matters: Whether an offered spec would be used.

        Raises:
            PluginError: One that matters is contested.
        """
        for name, offers in self.contested.get(kind, {}).items():
            if any(matters(offer.spec) for offer in offers):
                self.find(kind, name)


def _contest(kind: str, name: str, offers: Collection[Offer[Any]]) -> tuple[str, str]:
    """Say who offers the same name, and how to choose."""
    if kind == "plugin":
        names = " and by ".join(offer.distribution for offer in offers)
        return f"entry point '{name}' is declared by {names}; none is used", f"uninstall one, or harness -p no:{name}"
    who = " and by ".join(f"{offer.distribution} ({offer.plugin})" for offer in offers)
    first = min(offers, key=lambda offer: (offer.distribution != OWN, offer.plugin)).plugin
    others = " ".join(f"-p no:{offer.plugin}" for offer in offers if offer.plugin != first)
    return (
        f"{kind} '{name}' is offered by {who}; none is used until you choose",
        f"harness -p {name}={first} takes that of {first}" + (f", {others} leaves out the other" if others else ""),
    )


@dataclass(frozen=True)
class _Entry:
    name: str
    module: str
    distribution: str
    version: str
    load: Callable[[], object]


def _entries() -> list[_Entry]:
    found = [point for point in importlib.metadata.entry_points(group=GROUP) if point.dist is not None]
    # Every worker comes by here: a distribution reads its file anew for each of its facts.
    own = {id(point.dist): (point.dist.name, point.dist.version) for point in found if point.dist is not None}
    entries = [_Entry(point.name, point.value, *own[id(point.dist)], point.load) for point in found]
    return sorted(entries, key=lambda entry: (entry.name, entry.distribution))


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


def _offered(module: object) -> list[list[Any]]:
    return [list(itertools.islice(getattr(module, hook)(), MOST)) for hook in KINDS if hasattr(module, hook)]


class _Loader:
    """Load plugins one by one, so that each problem has one plugin to blame."""

    def __init__(self, *, tried: bool) -> None:
        self.tried = tried
        self.contested: dict[str, dict[str, tuple[Offer[Any], ...]]] = defaultdict(dict)
        self.manager = pluggy.PluginManager(GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.problems: list[Problem] = []
        self.noted: list[tuple[_Entry, str, str]] = []
        self.offers: dict[str, dict[str, list[Offer[Any]]]] = defaultdict(lambda: defaultdict(list))

    def blame(self, entry: _Entry, message: str) -> None:
        if sum(one.plugin == entry.name for one in self.problems) < TOLD:
            self.problems.append(Problem(entry.name, entry.distribution, line(message, REASON)))

    def broken(self, entry: _Entry, message: str) -> None:
        self.blame(entry, message)
        self.note(entry, "broken", message)

    def load(self, entry: _Entry) -> None:
        ended = faults.tried(lambda: _offered(entry.load())) if self.tried and entry.distribution != OWN else ""
        if ended:
            self.broken(entry, f"while it was imported and asked what it offers, its process {ended}")
            return
        try:
            with faults.contained():
                module = entry.load()
        except BaseException as error:
            if not faults.of_plugin(error):
                raise
            self.broken(entry, f"{raised(error)} on import")
            return
        unknown = [name for name in dir(module) if self._is_impl(module, name) and name not in vars(hookspecs)]
        if unknown:
            hint = suggest(unknown[0], [*KINDS, "harness_record_written"], "hook")
            self.broken(entry, f"unknown hook {unknown[0]!r}; {hint}")
            return
        try:
            self.manager.register(module, entry.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.broken(entry, str(error).replace("\n", " "))
            return
        offered = self.collect(entry, module)
        bad = any((one.plugin, one.distribution) == (entry.name, entry.distribution) for one in self.problems)
        self.note(entry, "broken" if bad and not offered else "loaded")

    @staticmethod
    def _is_impl(module: object, name: str) -> bool:
        return hasattr(getattr(module, name), f"{GROUP}_impl")

    def collect(self, entry: _Entry, module: object) -> bool:
        """Take what a plugin offers; tell whether that is anything."""
        source = _source_sha256(module)
        for hook, (kind, spec_type) in KINDS.items():
            function = getattr(module, hook, None)
            for spec in self._specs(entry, hook, function) if function is not None else ():
                wrong = wrong_with(spec, spec_type, hook) or self._twice(kind, spec, entry)
                if wrong:
                    self.blame(entry, wrong)
                    continue
                offer = Offer(spec, entry.name, entry.distribution, entry.version, source)
                self.offers[kind][spec.name].append(offer)
        offers = (offer for names in self.offers.values() for same in names.values() for offer in same)
        return any(offer.plugin == entry.name for offer in offers)

    def _specs(self, entry: _Entry, hook: str, function: Callable[[], Iterable[Any]]) -> list[Any]:
        found: list[Any] = []
        try:
            with faults.contained():
                found.extend(itertools.islice(function(), MOST))
        except BaseException as error:
            if not faults.of_plugin(error):
                raise
            self.blame(entry, f"{hook} raised {raised(error)}")
        return found

    def _twice(self, kind: str, spec: Any, entry: _Entry) -> str | None:
        if all(offer.plugin != entry.name for offer in self.offers[kind][spec.name]):
            return None
        return f"{kind} '{spec.name}' is offered twice by {entry.distribution} ({entry.name}); the first is used"

    def note(self, entry: _Entry, state: str, message: str = "") -> None:
        self.noted.append((entry, state, message))

    def settle(self, choose: Mapping[str, str]) -> None:
        """Decide names that several plugins offer by what was chosen; the rest is contested, and taken out."""
        for kind, names in self.offers.items():
            for name, offers in names.items():
                if len(offers) < 2:
                    continue
                taken = [offer for offer in offers if offer.plugin == choose.get(name)]
                said, hint = _contest(kind, name, offers)
                for offer in [] if taken else offers:
                    self.problems.append(Problem(offer.plugin, offer.distribution, f"{said}: {hint}"))
                if not taken:
                    self.contested[kind][name] = tuple(offers)
                names[name] = taken

    def infos(self) -> Iterator[PluginInfo]:
        """Yield every plugin with what is used of it, in order."""
        for entry, state, message in self.noted:
            own = {
                kind: tuple(sorted(name for name, same in names.items() if same and same[0].plugin == entry.name))
                for kind, names in self.offers.items()
            }
            me = (entry.name, entry.distribution)
            bad = "; ".join(one.message for one in self.problems if (one.plugin, one.distribution) == me)
            used = {kind: names for kind, names in own.items() if names and state == "loaded"}
            yield PluginInfo(
                entry.name, entry.module, entry.distribution, entry.version, state, used, message or line(bad, REASON)
            )


def _duplicates(entries: list[_Entry]) -> dict[str, list[_Entry]]:
    by_name: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry.name].append(entry)
    return {name: same for name, same in by_name.items() if len(same) > 1}


def load_registry(
    *,
    block: Collection[str] = (),
    only: Collection[str] | None = None,
    choose: Mapping[str, str] | None = None,
    tried: bool = False,
) -> Registry:
    """Import the installed plugins and collect their offers.

    Args:
        block: Entry-point names that are not imported.
        only: Import just these entry points (a worker needs one or two); ``None`` for all.
        choose: Name that several plugins offer -> entry-point name of the one that is used.
        tried: Import the plugins of other distributions in a copy of this process first, where it has no threads yet:
            one that ends the process, or never returns, costs itself alone.

    Raises:
        PlanError: A name that is blocked or chosen is not there.
    """
    loader, entries = _Loader(tried=tried), _entries()
    doubled = _duplicates(entries)
    for entry in entries:
        if entry.name in block:
            loader.note(entry, "blocked", f"blocked by -p no:{entry.name}")
        elif only is not None and entry.name not in only:
            loader.note(entry, "skipped")
        elif entry.name in doubled:
            same = tuple(Offer(None, one.name, one.distribution, one.version) for one in doubled[entry.name])
            loader.contested["plugin"][entry.name] = same
            loader.broken(entry, "; ".join(_contest("plugin", entry.name, same)))
        else:
            loader.load(entry)
    unknown = sorted(set(block) - {entry.name for entry in entries})
    if unknown:
        known = [entry.name for entry in entries]
        raise PlanError(f"no plugin is called {unknown[0]!r}", hint=suggest(unknown[0], known, "plugin"))
    return _freeze(loader, choose or {})


def _choosable(loader: _Loader, choose: Mapping[str, str]) -> None:
    every = [(name, offer.plugin) for names in loader.offers.values() for name, same in names.items() for offer in same]
    for name, plugin in choose.items():
        if (name, plugin) not in every:
            who = " and ".join(offering for offered, offering in every if offered == name)
            hint = f"{who} offer it" if who else suggest(name, [offered for offered, _by in every], "name")
            raise PlanError(f"plugin {plugin!r} offers nothing that is called {name!r}", hint=hint)


def _freeze(loader: _Loader, choose: Mapping[str, str]) -> Registry:
    def record_written(record: Record) -> None:
        for impl in loader.manager.hook.harness_record_written.get_hookimpls():
            try:
                with faults.contained():
                    impl.function(record)
            except BaseException as error:
                if not faults.of_plugin(error):  # an event must not cost the run
                    raise
                log.warning("plugin %s: harness_record_written raised %s", impl.plugin_name, raised(error))

    _choosable(loader, choose)
    loader.settle(choose)

    def frozen(kind: str) -> Mapping[str, Offer[Any]]:
        return MappingProxyType({name: same[0] for name, same in sorted(loader.offers[kind].items()) if same})

    targets = (offer for same in loader.offers["target"].values() for offer in same)
    environment.declare(name for offer in targets for name in offer.spec.environment)
    return Registry(
        frozen("workload"), frozen("method"), frozen("exporter"), frozen("oracle"), frozen("target"),
        tuple(loader.infos()), tuple(loader.problems), record_written, frozen("inspector"), loader.contested,
        dict(choose), frozen("bug"),
    )  # fmt: skip


__all__ = ["GROUP", "OWN", "PluginInfo", "Problem", "Registry", "load_registry"]
