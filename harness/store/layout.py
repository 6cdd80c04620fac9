"""Where everything of a run lies: results/<host>/<run>/ and the names inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import RecordError
from harness.plan import Request
from harness.types import Loaded

RUN = "run.json"
CONFIG = "bench.toml"
MANIFEST = "manifest.jsonl"
LOCK = ".lock"
UNIT = "unit.json"  # beside the runs of a machine in a merged tree: whose it is, and what it stands for
CELLS, RAW, PARTS, SCORES = "cells", "raw", "parts", "scores"
LOGS = "logs"  # what the sentences of failed cells leave out: for a person, in no manifest
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class RunInfo:
    """What was asked for, on which host and with which software.

    Attributes:
        run_id: Empty until the folder exists: time and plan in one name.
        request: What was asked for, last where the run was resumed; bench.toml beside it is the text that plans it
            again.
        plan_sha256: Equal for equal plans: what resuming looks for.
        host_facts: Stable facts, hashed into ``host_id``; what cannot be read is "not available: reason".
        host_state, host_state_after: What changes while the host runs (frequency, pressure, load).
        packages: Distribution -> version of all that was installed; what was added before the run was resumed too.
        plugins: Plugin -> distribution and version.
        command: The command line as it was given, last where the run was resumed.
        host_name: Readable; names the host's folder together with ``host_id``.
        host_id_after: Of the host when the run ended; another one means that the host changed under the run.
        host_facts_changed: Facts that were others when the run ended, as they were then: no such run verifies.
        package_records: Distribution -> hash of the list of its files with theirs (RECORD), where it has one.
        loaded: Target -> shared objects that its untimed launches had mapped after their inferences.
        finished_utc: Empty until every cell has its record.
    """

    schema: int
    run_id: str
    request: Request
    plan_sha256: str
    profile: str
    seed: int
    started_utc: str
    host_id: str
    host_facts: Mapping[str, str]
    host_state: Mapping[str, str]
    packages: Mapping[str, str]
    plugins: Mapping[str, str]
    command: tuple[str, ...]
    harness_version: str
    host_name: str = ""
    host_id_after: str = ""
    host_state_after: Mapping[str, str] = field(default_factory=dict)
    finished_utc: str = ""
    host_facts_changed: Mapping[str, str] = field(default_factory=dict)
    package_records: Mapping[str, str] = field(default_factory=dict)
    loaded: Mapping[str, Loaded] = field(default_factory=dict)


def make_run_id(started_utc: str, plan_sha256: str) -> str:
    """Return a name that sorts by time, such as ``20260801T101112Z-1a2b3c4d``, from an ISO 8601 UTC time."""
    digits = re.sub(r"\D", "", started_utc.split(".")[0].split("+")[0])[:14]
    return f"{digits[:8]}T{digits[8:]}Z-{plan_sha256[:8]}"


def host_folder(host_name: str, host_id: str) -> str:
    """Return the folder of a host: a short readable name and the first digits of its identity."""
    name = re.sub(r"[^a-z0-9]+", "-", host_name.lower()).strip("-")[:32].strip("-")
    return f"{name or 'host'}-{host_id[:8]}"


def safe(name: str) -> str:
    """Return ``name`` if it can be a file name on its own.

    Raises:
        RecordError: It could leave its folder, or is hidden, empty or too long.
    """
    if not _SAFE.fullmatch(name):
        raise RecordError(f"{name!r} cannot be a file name in a run folder")
    return name


def cell_file(cell_id: str) -> str:
    """Return the path of a record inside its run."""
    return f"{CELLS}/{safe(cell_id)}.json"


def set_name(group: str, index: int) -> str:
    """Return the name of a launch-set, which ``Record.sets`` lists."""
    return f"{safe(group)}-{index:05d}"


def set_file(name: str) -> str:
    """Return the path of a launch-set's raw samples inside its run."""
    return f"{RAW}/{safe(name)}.json.gz"


def part_file(cell_id: str, name: str) -> str:
    """Return the path of a finished part of a cell inside its run."""
    return f"{PARTS}/{safe(cell_id)}-{safe(name)}.json"


def scores_file(cell_id: str) -> str:
    """Return the path of a cell's per-item statistics inside its run."""
    return f"{SCORES}/{safe(cell_id)}.npy"


def extra_scores(cell_id: str, name: str) -> str:
    """Return under which name further per-item statistics of a cell are kept, such as "confidence"."""
    return f"{cell_id}-{name}"


def listed_files(folder: Path) -> list[str]:
    """Return every file of a run that belongs in its manifest, as sorted paths relative to ``folder``."""
    places = [folder, *(folder / name for name in (CELLS, RAW, PARTS, SCORES))]
    files = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()]
    return sorted(
        path.relative_to(folder).as_posix() for path in files if not path.name.startswith(".") and path.name != MANIFEST
    )
