"""The eight hooks. They are called once, at start, to collect what plugins offer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from harness.inspection import InspectorSpec
from harness.runtime_bugs import RuntimeBug
from harness.specs import ExporterSpec, MethodSpec, OracleSpec, TargetSpec, WorkloadSpec
from harness.types import Record

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


@hookspec
def harness_workloads() -> Iterable[WorkloadSpec[Any]]:
    """Offer workloads: models to compress, with their data."""
    return ()


@hookspec
def harness_methods() -> Iterable[MethodSpec[Any]]:
    """Offer compression methods."""
    return ()


@hookspec
def harness_exporters() -> Iterable[ExporterSpec]:
    """Offer ways from one model format to another."""
    return ()


@hookspec
def harness_oracles() -> Iterable[OracleSpec]:
    """Offer frameworks whose answers those of the runtimes are compared with."""
    return ()


@hookspec
def harness_targets() -> Iterable[TargetSpec[Any]]:
    """Offer runtimes to measure on."""
    return ()


@hookspec
def harness_inspectors() -> Iterable[InspectorSpec]:
    """Offer readers of model formats, for ``harness inspect``."""
    return ()


@hookspec
def harness_runtime_bugs() -> Iterable[RuntimeBug]:
    """Offer public bugs of runtimes, for ``harness selftest --runtimes``."""
    return ()


@hookspec
def harness_record_written(record: Record) -> None:
    """Hear of a finished cell, for uploads or notices; an error here is only logged."""
