"""From a request to a finished run folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.bench.asides import asides
from harness.bench.campaign import Campaign
from harness.bench.fitness import Fitness
from harness.bench.owndata import read_own_data
from harness.bench.records import Context, doubtful, failed_record, utc_now
from harness.bench.shared import Shared
from harness.bench.ui import Ui
from harness.build import BuildEvent, Built, Cache, build_plan, open_pack, own_artifacts, probe_targets
from harness.codec import file_sha256, sha256
from harness.errors import Interrupted, PlanError
from harness.measure import slots
from harness.measure.cpus import effective_cores
from harness.measure.host import Fingerprint, fingerprint
from harness.measure.meter import Meter
from harness.plan import Plan, PlannedCell, Request, TargetState, make_plan, resolve_targets
from harness.plan.resolve import workloads
from harness.plugins import Registry
from harness.profiles import profile_named
from harness.store import RunInfo, RunStore, open_run
from harness.types import SCHEMA, Failure, Record


def package_records() -> dict[str, str]:
    """Return the hash of each installed distribution's RECORD, which lists its files with theirs."""
    found = {}
    for dist in importlib.metadata.distributions():
        text = dist.read_text("RECORD") if dist.name else None
        if text:
            found[dist.name.lower()] = hashlib.sha256(text.encode()).hexdigest()
    return found


@dataclass(frozen=True)
class RunResult:
    """Where a run lies and how it ended."""

    folder: Path
    exit_code: int


def prepare(request: Request, registry: Registry) -> tuple[Plan, Mapping[str, TargetState]]:
    """Probe the targets that are asked for and plan the cells."""
    wanted = resolve_targets(request, registry)
    states = probe_targets(wanted, python=request.python, timeout_s=min(120.0, request.timeout_s))
    beside = asides(request, wanted, states, workloads(request, registry))
    return make_plan(request, registry, states, effective_cores(), beside), states


def package_lock() -> dict[str, str]:
    """Return the version of every installed distribution."""
    return {dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}


def run(
    request: Request,
    *,
    registry: Registry,
    out: Path,
    pack: Path | None = None,
    fresh: bool = False,
    ui: Ui,
) -> RunResult:
    """Plan, build and measure; every cell ends as a record, every finished launch-set is on disk.

    An unfinished run of the same plan on the same host is resumed unless ``fresh``.

    Args:
        request: What to measure.
        registry: What plugins offer.
        out: Root of the results tree.
        pack: Measure the artifacts of this file instead of building.
        fresh: Start anew even where an unfinished run could be resumed.
        ui: Progress and talk.

    Raises:
        PlanError: The request cannot be planned.
        Interrupted: The user stopped it; the hint says how to resume.
    """
    if request.meter:
        Meter(Path(request.meter))  # one that cannot be read is refused before anything is built
    ui.stage("probing targets", 1)
    plan, states = prepare(request, registry)
    if pack is None:
        plan = read_own_data(plan, registry, ui.note)
    if not plan.cells:
        raise PlanError("nothing to measure: the request names no cell", hint="see 'harness bench --dry-run'")
    ui.advance("probing targets", 1, "")
    host = fingerprint()
    info = _info(request, plan, states, host, registry, pack)
    with open_run(out, info, fresh=fresh) as store:
        ui.note(f"{'resuming' if store.resumed else 'results in'} {store.folder}")
        try:
            records = _work(request, plan, states, registry, store, pack, ui)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; finished work is in {store.folder}", hint="run the same command again"
            ) from None
        store.finish(fingerprint(fresh=True))
    return RunResult(store.folder, exit_code(records, strict=request.strict))


def _devices(states: Mapping[str, TargetState]) -> dict[str, str]:
    """Return the facts of other machines that run models, by the target that reaches them."""
    found = {text: state.availability.device for text, state in states.items()}
    return {f"{text} {name}": value for text, facts in found.items() for name, value in facts.items()}


def _info(
    request: Request,
    plan: Plan,
    states: Mapping[str, TargetState],
    host: Fingerprint,
    registry: Registry,
    pack: Path | None,
) -> RunInfo:
    sources = _sources_of_plan(plan, registry)
    return RunInfo(
        schema=SCHEMA,
        run_id="",
        request=request,
        plan_sha256=sha256(
            [plan.plan_sha256, host.host_id, sources, harness.__version__, file_sha256(pack) if pack else ""]
        ),
        profile=request.profile,
        seed=request.seed,
        started_utc=utc_now(),
        host_id=host.host_id,
        host_facts={**host.facts, **_devices(states)},
        host_state=host.state,
        packages=package_lock(),
        package_records=package_records(),
        plugins={info.name: f"{info.distribution} {info.version}" for info in registry.plugins},
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        harness_version=harness.__version__,
    )


def sources_of(registry: Registry) -> dict[str, str]:
    """Return the hash of each plugin's source, and which plugin was chosen for a name that several offer.

    Plugins that offer nothing have no hash.
    """
    kinds = (registry.workloads, registry.methods, registry.exporters, registry.targets)
    found = dict.fromkeys((info.name for info in registry.plugins), "")
    found |= {offer.plugin: offer.source_sha256 for offers in kinds for offer in offers.values()}
    return found | {f"{name}=": plugin for name, plugin in registry.chosen.items()}


def _sources_of_plan(plan: Plan, registry: Registry) -> dict[str, str]:
    """Return the hash of the source of each plugin that the cells come from; one that is added changes none of them."""
    used = {item.plugin for cell in plan.cells for item in (cell.workload, *cell.pipeline, cell.target)}
    used |= {registry.exporters[name].plugin for cell in plan.cells for name in cell.exporters}
    used |= {offer.plugin for offer in registry.oracles.values()}
    return {plugin: source for plugin, source in sources_of(registry).items() if plugin in used}


def _work(
    request: Request,
    plan: Plan,
    states: Mapping[str, TargetState],
    registry: Registry,
    store: RunStore,
    pack: Path | None,
    ui: Ui,
) -> list[Record]:
    sources = sources_of(registry)
    context = Context(
        store.info.host_id,
        request.profile,
        states,
        sources,
        strict=request.strict,
        strict_share=request.strict_share,
        modelless=frozenset(name for name, offer in registry.targets.items() if not offer.spec.ranked),
    )
    records = [
        _write_failed(planned, planned.impossible, context, store, registry)
        for planned in plan.cells
        if planned.impossible
    ]
    with own_artifacts(_build(plan, states, registry, pack, ui), Cache()) as results:
        return records + _measure(plan, results, request, context, registry, store, ui)


def _measure(
    plan: Plan,
    results: Mapping[str, Built | Failure],
    request: Request,
    context: Context,
    registry: Registry,
    store: RunStore,
    ui: Ui,
) -> list[Record]:
    possible = tuple(planned for planned in plan.cells if planned.impossible is None)
    built = {cell_id: item for cell_id, item in results.items() if isinstance(item, Built)}
    lost = {cell_id: item for cell_id, item in results.items() if isinstance(item, Failure)}
    records = [
        _write_failed(planned, lost[planned.cell.cell_id], context, store, registry)
        for planned in possible
        if planned.cell.cell_id in lost
    ]
    cells = tuple(planned for planned in possible if planned.cell.cell_id in built)
    if not cells:
        return records
    profile = profile_named(request.profile)
    with slots.measuring(on_wait=ui.note):
        shared = Shared(request, profile, registry, store, context, ui, built, cells, lost)
        return records + Campaign(shared, Fitness(profile.calm_seconds)).run()


def _write_failed(
    planned: PlannedCell, failure: Failure, context: Context, store: RunStore, registry: Registry
) -> Record:
    record = failed_record(planned, store.keep_details(failure), context)
    store.write_record(record)
    registry.record_written(record)
    return record


def _build(
    plan: Plan, states: Mapping[str, TargetState], registry: Registry, pack: Path | None, ui: Ui
) -> Mapping[str, Built | Failure]:
    started = time.monotonic()
    opened = False

    def on_event(event: BuildEvent) -> None:
        nonlocal opened
        if not opened:
            ui.stage("building", event.total)
            opened = True
        ui.advance("building", event.done + event.fraction, event.text)

    cache, workers, slot = Cache(), effective_cores(), slots.building
    if pack is not None:
        return open_pack(
            pack, plan, registry=registry, cache=cache, on_event=on_event, states=states, workers=workers, slot=slot
        )
    results = build_plan(plan, cache, registry=registry, workers=workers, on_event=on_event, slot=slot, states=states)
    ui.note(f"built in {time.monotonic() - started:.0f} s")
    return results


def exit_code(records: list[Record], *, strict: bool) -> int:
    """Return 0 where every cell is ok, not applicable or unavailable, else 1; ``strict`` also counts its flags."""
    for record in records:
        if record.status not in {"ok", "not-applicable", "unavailable"}:
            return 1
        if strict and doubtful(record.flags, None):
            return 1
    return 0
