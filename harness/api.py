"""All that a plugin author imports: the only stable surface of the core."""

from __future__ import annotations

from harness.errors import BadModel, HarnessError, MissingDependency, PlanError, Unsupported
from harness.hookspecs import hookimpl
from harness.packing import Span, stored_size
from harness.params import param
from harness.specs import (
    Data,
    ExporterSpec,
    Job,
    MethodSpec,
    NoParams,
    Session,
    Split,
    SupportsBind,
    SupportsDeviceMemory,
    SupportsEffective,
    SupportsPlacements,
    TargetSpec,
    WorkloadSpec,
    WorkloadView,
)
from harness.types import (
    Artifact,
    Availability,
    Calibration,
    Capabilities,
    Model,
    Options,
    Placement,
    Precision,
    Purpose,
    Record,
    SplitName,
    StepRecord,
    TensorSpec,
)

__all__ = [
    "Artifact",
    "Availability",
    "BadModel",
    "Calibration",
    "Capabilities",
    "Data",
    "ExporterSpec",
    "HarnessError",
    "Job",
    "MethodSpec",
    "MissingDependency",
    "Model",
    "NoParams",
    "Options",
    "Placement",
    "PlanError",
    "Precision",
    "Purpose",
    "Record",
    "Session",
    "Span",
    "Split",
    "SplitName",
    "StepRecord",
    "SupportsBind",
    "SupportsDeviceMemory",
    "SupportsEffective",
    "SupportsPlacements",
    "TargetSpec",
    "TensorSpec",
    "Unsupported",
    "WorkloadSpec",
    "WorkloadView",
    "hookimpl",
    "param",
    "stored_size",
]
