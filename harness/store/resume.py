"""Find the run that a plan continues, or start a new one."""

from __future__ import annotations

import logging
from pathlib import Path

from harness.errors import HarnessError
from harness.store import files, layout, manifest
from harness.store.run import RunStore

log = logging.getLogger("harness")


def open_run(root: Path, info: layout.RunInfo, *, fresh: bool = False) -> RunStore:
    """Resume the newest unfinished run of this plan on this host, or start one.

    A run that is resumed is asked for what ``info`` asks for from then on.

    Args:
        root: The results folder.
        info: Of the run to start; ``run_id`` and ``host_name`` are filled in where they are empty.
        fresh: Start one in any case.

    Raises:
        HarnessError: Another process has that run open.
    """
    found = None if fresh else find_resumable(root, info)
    if found is None:
        return RunStore.create(root, info)
    store = RunStore(found)
    store.ask(info)
    return store


def find_resumable(root: Path, wanted: layout.RunInfo) -> Path | None:
    """Return the newest unfinished run that a run with this information would continue, or None.

    It has the same plan and host, and all packages that it lists are installed as they were: one that was added since
    changes nothing that was measured.
    """
    found: list[tuple[str, str, Path]] = []
    for file in root.glob(f"*-{wanted.host_id[:8]}/*/{layout.RUN}"):
        info = _resumable_info(file)
        if info is not None and not info.finished_utc and _continues(info, wanted):
            found.append((info.started_utc, info.run_id, file.parent))
    return max(found)[2] if found else None


def _continues(info: layout.RunInfo, wanted: layout.RunInfo) -> bool:
    same = (info.host_id, info.plan_sha256) == (wanted.host_id, wanted.plan_sha256)
    return same and info.packages.items() <= wanted.packages.items()


def _resumable_info(file: Path) -> layout.RunInfo | None:
    try:
        info = files.decode(layout.RunInfo, file.read_bytes(), str(file))
        wrong = manifest.read(file.parent).wrong
    except (OSError, HarnessError) as error:
        log.warning("cannot be resumed: %s", error)
        return None
    if wrong:
        log.warning("cannot be resumed: the manifest of %s is broken: %s", file.parent, wrong)
        return None
    return info
