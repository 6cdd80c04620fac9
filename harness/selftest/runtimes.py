"""Ask the runtimes that are installed here about public bugs, each in a process of its own."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import harness
from harness.bench.records import utc_now
from harness.build.pool import Gone
from harness.build.probe import ask_each
from harness.build.tasks import Provoke, Provoked, Reply, Request, Use
from harness.errors import PlanError
from harness.measure import fingerprint
from harness.params import suggest
from harness.plugins import Registry
from harness.runtime_bugs import Outcome, RuntimeBug, Symptom
from harness.types import SCHEMA

TIMEOUT_S = 100.0  # for one bug: a converter can take half a minute to import


@dataclass(frozen=True)
class BugRow:
    """What one runtime's version does where a bug is reported.

    Attributes:
        bug, summary, url, runtime, hit, symptom: As its ``RuntimeBug`` says.
        version: Of the runtime; empty where it is not installed.
        reason: What is wrong, or why there is no answer.
    """

    bug: str
    summary: str
    url: str
    runtime: str
    version: str
    hit: str
    symptom: Symptom
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class RuntimesReport:
    """The corpus on one host.

    Attributes:
        cpu: Model name; some bugs show on CPUs without some instructions.
        seconds: Of the whole run.
    """

    schema: int
    harness_version: str
    cpu: str
    python: str
    started_utc: str
    seconds: float
    rows: tuple[BugRow, ...]

    def count(self, outcome: Outcome) -> int:
        """Return how many rows ended so."""
        return sum(row.outcome == outcome for row in self.rows)


def run_runtimes(
    registry: Registry, *, only: tuple[str, ...] = (), python: Mapping[str, str] | None = None
) -> RuntimesReport:
    """Run every bug that plugins offer, as many at a time as there are cores.

    Args:
        registry: What plugins offer.
        only: Names of bugs or of runtimes; empty for all.
        python: Runtime -> interpreter in which its bugs run.

    Raises:
        PlanError: Nothing is called so, or no plugin offers a bug.
    """
    bugs = _chosen({name: offer.spec for name, offer in registry.bugs.items()}, only)
    started, begin = utc_now(), time.monotonic()
    requests = {name: Request(provoke=Provoke(Use(registry.bugs[name].plugin, name))) for name in bugs}
    interpreters = {name: (python or {}).get(bug.runtime) for name, bug in bugs.items()}
    answers = ask_each(requests, interpreters, timeout_s=TIMEOUT_S)
    rows = sorted(
        (_row(bug, _provoked(answers[name])) for name, bug in bugs.items()), key=lambda row: (row.runtime, row.bug)
    )
    versions = {row.runtime: row.version for row in rows if row.version}
    return RuntimesReport(
        SCHEMA, harness.__version__, fingerprint().facts["cpu_model_name"], platform.python_version(), started,
        round(time.monotonic() - begin, 1), tuple(_known_version(row, versions) for row in rows),
    )  # fmt: skip


def _chosen(bugs: Mapping[str, RuntimeBug], only: tuple[str, ...]) -> dict[str, RuntimeBug]:
    names = {*bugs, *(bug.runtime for bug in bugs.values())}
    for name in only:
        if name not in names:
            raise PlanError(f"no bug and no runtime is called {name!r}", hint=suggest(name, sorted(names), "bug"))
    if not bugs:
        raise PlanError("no plugin offers a bug of a runtime", hint="a plugin does by the hook harness_runtime_bugs")
    return {name: bug for name, bug in bugs.items() if not only or name in only or bug.runtime in only}


def _provoked(answer: Reply | Gone) -> Provoked:
    if isinstance(answer, Gone):
        died = answer.status in {"crashed", "timeout", "oom"}
        return Provoked("crashed" if died else "not-evaluable", "", answer.reason if died else answer.told)
    if answer.provoked is None:
        return Provoked("not-evaluable", "", answer.failure.reason if answer.failure else "no answer came")
    return answer.provoked


def _row(bug: RuntimeBug, found: Provoked) -> BugRow:
    return BugRow(
        bug.name, bug.summary, bug.url, bug.runtime, found.version, bug.hit, bug.symptom, found.outcome, found.reason
    )


def _known_version(row: BugRow, versions: Mapping[str, str]) -> BugRow:
    """Return a row with its version: a process that crashed told none, others of the same runtime did."""
    return row if row.version or row.outcome != "crashed" else replace(row, version=versions.get(row.runtime, ""))
