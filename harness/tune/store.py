"""A search on disk: every finished trial is written whole before the next one starts."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.codec import write_whole
from harness.store import files, host_folder
from harness.store.lock import RunLock
from harness.tune.values import Study, Trial

STUDY, TRIALS, SPEC, FRONT = "study.json", "trials", "bench.toml", "front.json"


class StudyStore:
    """The folder of one search, open for writing by this process alone. Use it as a context manager."""

    def __init__(self, root: Path, study: Study) -> None:
        """Open the search of this study's hash, or begin it.

        Raises:
            HarnessError: Another process has it open.
            RecordError: What is there cannot be read.
        """
        host = root / host_folder(platform.node(), study.host_id)
        self.folder = host / f"tune-{study.study_sha256[:8]}"
        (self.folder / TRIALS).mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self.folder)
        try:
            path = self.folder / STUDY
            if path.is_file():
                before = files.decode(Study, path.read_bytes(), str(path))
                study = dataclasses.replace(study, started_utc=before.started_utc)
            write_whole(path, files.encode(study, STUDY))
            self.study = study
            self.trials = self._read()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _read(self) -> list[Trial]:
        paths = sorted((self.folder / TRIALS).glob("[0-9]*.json.gz"))
        return [files.decode(Trial, files.unpack(path.read_bytes(), str(path)), str(path)) for path in paths]

    def write(self, trial: Trial) -> None:
        """Keep a finished trial with its raw samples."""
        name = f"{trial.number:05d}.json.gz"
        write_whole(self.folder / TRIALS / name, files.pack(files.encode(trial, name)))
        self.trials.append(trial)
