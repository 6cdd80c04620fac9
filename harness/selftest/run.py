"""Run the self-test line by line, resume a full one, and write the report."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import harness
from harness import codec
from harness.bench.records import utc_now
from harness.bench.run import package_lock
from harness.errors import HarnessError, PlanError
from harness.measure import clean, fingerprint, slots
from harness.plugins import Registry
from harness.selftest import again, answers, detectors, floor, known, recorded, simulated, vendor
from harness.selftest.lab import Lab
from harness.selftest.values import Kind, Line, Report
from harness.store.layout import host_folder
from harness.types import SCHEMA

Group = Callable[[Lab], Iterator[Line]]


def _pure(make: Callable[[], Iterator[Line]]) -> Group:
    return lambda _lab: make()


GROUPS: Mapping[str, Group] = {
    "recorded-aa": _pure(recorded.same_things),
    "recorded-power": _pure(recorded.power),
    "recorded-noise": _pure(recorded.detectors),
    "recorded-determinism": _pure(recorded.determinism),
    "simulated-truth": _pure(simulated.known_truth),
    "simulated-aa": _pure(simulated.same_things),
    "simulated-power": _pure(simulated.power),
    "simulated-coverage": _pure(simulated.coverage),
    "simulated-noise": _pure(simulated.evidence),
    "simulated-determinism": _pure(simulated.determinism),
    "simulated-floor": _pure(floor.planted),
    "answers": answers.planted,
    "known": known.known_times,
    "work": again.known_work,
    "floor": floor.physical_floor,
    "memory": known.memory,
    "weights": floor.known_weights,
    "flips": known.flips,
    "noise": detectors.detectors,
    "silent": detectors.silent,
    "aa": known.same_things,
    "vendor": vendor.agreement,
    "power": known.power,
}
CALM_S = {False: 10.0, True: 120.0}


def run_selftest(
    registry: Registry,
    *,
    out: Path,
    full: bool,
    fresh: bool = False,
    only: tuple[str, ...] = (),
    note: Callable[[str], None],
    on_line: Callable[[Line], None],
) -> tuple[Report, Path]:
    """Run the groups of lines, and write the report beside the host's runs.

    A full self-test keeps its raw launch-sets and the lines that were decided: run again, it goes on where it stopped
    and tries again what could not be evaluated.

    Args:
        registry: Where the targets of known truth come from.
        out: Root of the results tree.
        full: Every trial; minutes become an hour.
        fresh: Forget what a full self-test left.
        only: Names of groups; empty for all.
        note: Hears what happens.
        on_line: Gets each line as it is decided.

    Returns:
        The report and its file.

    Raises:
        PlanError: A group is not known.
    """
    for name in only:
        if name not in GROUPS:
            raise PlanError(f"no group of self-tests is called {name!r}", hint=f"there are: {', '.join(GROUPS)}")
    host, started = fingerprint(), utc_now()
    with ExitStack() as held:
        folder = (
            _folder(host.host_id) if full else Path(held.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
        )
        if fresh and full:
            _forget(folder, "")
        held.enter_context(slots.measuring(on_wait=note))
        lab = Lab(registry, folder, full, CALM_S[full], note)
        found = {name: _group(lab, name, on_line) for name in GROUPS if not only or name in only}
        lines = [line for name in GROUPS for line in found.get(name, _stored(lab, name) if full else [])]
    report = Report(SCHEMA, harness.__version__, host.host_id, full, started, utc_now(), tuple(lines), package_lock())
    path = out / host_folder(platform.node(), host.host_id) / ("selftest-full.json" if full else "selftest.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    codec.write_whole(path, codec.dumps(report, indent=2))
    return report, path


def _folder(host_id: str) -> Path:
    return clean.folder() / "selftest" / f"{host_id}-{harness.__version__}"


def _forget(folder: Path, name: str) -> None:
    """Drop the raw launch-sets and decided lines of one group, or of all."""
    for path in [*folder.glob(f"raw/{name}*.json"), *folder.glob(f"lines-{name}*.json")]:
        path.unlink()


def _stored(lab: Lab, name: str) -> list[Line]:
    """Return the lines that an earlier part of a full self-test left of a group."""
    stored = lab.folder / f"lines-{name}.json"
    return list(codec.loads(tuple[Line, ...], stored.read_bytes(), where=str(stored))) if stored.exists() else []


def _group(lab: Lab, name: str, on_line: Callable[[Line], None]) -> list[Line]:
    stored, lines = lab.folder / f"lines-{name}.json", _stored(lab, name)
    if lines:
        if all(line.verdict != "not-evaluable" for line in lines):
            for line in lines:
                on_line(replace(line, reason=f"{line.reason} (decided before)"))
            return lines
        _forget(lab.folder, name)
    lines = []
    for line in _guarded(lab, name):
        on_line(line)
        lines.append(line)
    codec.write_whole(stored, codec.dumps(tuple(lines)))
    return lines


def _guarded(lab: Lab, name: str) -> Iterator[Line]:
    """Yield a group's lines with the time each took; what breaks is a line that could not be evaluated."""
    begin = time.monotonic()
    try:
        for line in GROUPS[name](lab):
            yield replace(line, seconds=round(time.monotonic() - begin, 1))
            begin = time.monotonic()
    except HarnessError as error:
        first = name.partition("-")[0]
        kind: Kind = "recorded" if first == "recorded" else "simulated" if first == "simulated" else "live"
        yield Line(name, kind, "not-evaluable" if kind == "live" else "fail", error.message)
