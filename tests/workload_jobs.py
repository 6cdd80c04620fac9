"""Workloads as a build step meets them: parameters from text, a job with their own data."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Job, Split, SplitName, WorkloadSpec
from harness.build.job import Workload
from harness_workloads import harness_workloads


@dataclass(frozen=True)
class OwnData:
    """Splits straight from the workload."""

    workload: Workload

    def split(self, name: SplitName) -> Split:
        return self.workload.spec.split(self.workload.params, name)


def specs() -> dict[str, WorkloadSpec[Any]]:
    return {spec.name: spec for spec in harness_workloads()}


def workload(name: str, **params: Any) -> Workload:
    return Workload.of(specs()[name], params)


def job(work: Workload, out: Path, *, seed: int = 0) -> Job:
    out.mkdir(exist_ok=True)
    return Job(out, seed, 1, OwnData(work), work, lambda _share, _words: None, logging.getLogger("harness"))
