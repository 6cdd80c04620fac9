"""From what was built and measured to one record per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import harness
from harness import claims, codec
from harness.bench.floor import floor_flags, violation
from harness.bench.layers import LayersPart
from harness.bench.oracle import SLICE_LOST
from harness.build import Built
from harness.codec import sha256
from harness.plan import PlannedCell, TargetState
from harness.stats import coverage as cover
from harness.types import (
    SCHEMA,
    Artifact,
    Confidence,
    Coverage,
    Energy,
    Failure,
    Latency,
    Memory,
    OracleCheck,
    Placement,
    Quality,
    Record,
    Robustness,
    Roofline,
    ScenarioResult,
)

# What makes a cell fail under --strict: it did not run what its label says.
PRECISION_LEAK = "precision_leak"
STRICT_FLAGS = (PRECISION_LEAK, "fallback", SLICE_LOST)
NO_DATA = "random_calibration"  # set where the user gave no data: outputs for seeded noise claim nothing


@dataclass(frozen=True)
class MemoryPart:
    """The finished memory launch of a cell, or why there is none."""

    memory: Memory | None = None
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class CheckPart:
    """The finished untimed launch of a cell: quality, placement and options read back."""

    quality: Quality | None = None
    placements: tuple[Placement, ...] = ()
    coverage: Coverage | None = None
    effective: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    confidence: Confidence | None = None
    oracle: OracleCheck | None = None


@dataclass(frozen=True)
class Context:
    """What all records of a run share.

    Attributes:
        modelless: Names of the targets that run no model.
    """

    host_id: str
    profile: str
    states: Mapping[str, TargetState]
    plugin_sources: Mapping[str, str]
    strict: bool = False
    strict_share: float = cover.STRICT_SHARE
    modelless: frozenset[str] = frozenset()

    def flags(self, planned: PlannedCell) -> tuple[str, ...]:
        """Return what is known of a cell by its target alone."""
        return (claims.NO_MODEL,) if planned.target.name in self.modelless else ()

    def state(self, planned: PlannedCell) -> TargetState | None:
        """Return the probed state of a cell's target."""
        return self.states.get(planned.labels["target"])

    def sparsity(self, planned: PlannedCell) -> tuple[str, ...]:
        """Return the sparsity patterns for which the cell's target has a kernel."""
        state = self.state(planned)
        return state.capabilities.sparsity if state and state.capabilities else ()

    def inputs_sha256(self, planned: PlannedCell, built: Built | None) -> str:
        """Hash all that decides whether a stored result may be reused, the content of the evaluation data among it."""
        state, artifact = self.state(planned), built.artifact if built else None
        runtime = (state.availability.runtime, state.availability.version) if state else ("", "")
        plugin = self.plugin_sources.get(planned.target.plugin, "")
        known = [artifact.sha256 if artifact else "", runtime, plugin, harness.__version__, self.host_id]
        known.append(built.evaluation.sha256 if built else "")
        device = dict(state.availability.device) if state else {}
        return sha256([*known, device] if device else known)


def utc_now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def failed_record(
    planned: PlannedCell,
    failure: Failure,
    context: Context,
    built: Built | None = None,
    oracle: OracleCheck | None = None,
) -> Record:
    """Return the record of a cell that did not finish: a row with its reason, and what of its answers was wrong."""
    return Record(
        schema=SCHEMA,
        cell=planned.cell,
        cell_id=planned.cell.cell_id,
        status=failure.status,
        inputs_sha256=context.inputs_sha256(planned, built),
        host_id=context.host_id,
        profile=context.profile,
        labels=planned.labels,
        stage=failure.stage,
        blame=failure.blame,
        reason=failure.reason,
        lineage=built.model.lineage if built else (),
        artifact=_published(built.artifact) if built else None,
        flags=context.flags(planned),
        oracle=oracle,
        finished_utc=utc_now(),
    )


def _published(artifact: Artifact) -> Artifact:
    """Return an artifact as records name it: by its file's name and hash, not by this machine's folders."""
    return replace(artifact, path=Path(artifact.path.name))


@dataclass(frozen=True)
class Finished:
    """All that one measured cell came to.

    Attributes:
        unchanged: The flag of a cell whose artifact is its anchor's although a method was to change it.
    """

    planned: PlannedCell
    built: Built
    memory: MemoryPart
    check: CheckPart
    latency: Latency | None
    sets: tuple[str, ...]
    anchor: str | None
    anchor_precision: str | None
    anchor_reason: str
    latency_seconds: float
    host: Mapping[str, str] = field(default_factory=dict)
    scenarios: tuple[ScenarioResult, ...] = ()
    roofline: Roofline | None = None
    energy: Energy | None = None
    robustness: Robustness | None = None
    robustness_seconds: float = 0.0
    layers: LayersPart | None = None
    unchanged: str = ""


def finished_record(done: Finished, context: Context) -> Record:
    """Return the record of a measured cell."""
    planned, built = done.planned, done.built
    state = context.state(planned)
    flags = tuple(dict.fromkeys((*context.flags(planned), *_flags(done))))
    broken = violation(done.roofline, done.latency) if done.latency else None
    doubt = broken or (doubtful(flags, done.check.coverage, context.strict_share) if context.strict else None)
    return Record(
        schema=SCHEMA,
        cell=planned.cell,
        cell_id=planned.cell.cell_id,
        status="failed" if doubt else "ok",
        stage="latency" if broken else "placement" if doubt else None,
        blame=planned.target.plugin if doubt else None,
        reason=doubt,
        inputs_sha256=context.inputs_sha256(planned, built),
        host_id=context.host_id,
        profile=context.profile,
        labels=planned.labels,
        kind="simulated" if planned.runs_on == "emulator" else "measured",
        anchor=done.anchor,
        anchor_precision=done.anchor_precision,
        anchor_reason=done.anchor_reason or None,
        lineage=built.model.lineage,
        artifact=_published(built.artifact),
        latency=done.latency,
        memory=done.memory.memory,
        quality=done.check.quality,
        placements=done.check.placements,
        coverage=done.check.coverage,
        flags=flags,
        effective=done.check.effective,
        provenance={**_provenance(state, context, planned), "evaluation_sha256": built.evaluation.sha256, **done.host},
        seconds={
            **built.seconds,
            "memory": done.memory.seconds,
            "accuracy": done.check.seconds,
            "latency": done.latency_seconds,
            **({"robustness": done.robustness_seconds} if done.robustness_seconds else {}),
            **({"layers": done.layers.seconds} if done.layers else {}),
        },
        sets=done.sets,
        scenarios=done.scenarios,
        roofline=done.roofline,
        energy=done.energy,
        confidence=done.check.confidence,
        robustness=done.robustness,
        layers=done.layers.layers if done.layers else None,
        oracle=done.check.oracle,
        finished_utc=utc_now(),
        model_sha256=codec.file_sha256(built.model.path) if built.model.path.is_file() else None,
    )


def doubtful(flags: Sequence[str], found: Coverage | None, least: float = cover.STRICT_SHARE) -> str | None:
    """Say why a cell fails under --strict, or return None; its figures stay in the record.

    Args:
        flags: Of the cell.
        found: Its coverage.
        least: The share that has to have run, or be stored, as the label says.
    """
    named = [flag for flag in flags if flag in STRICT_FLAGS or flag.startswith(claims.NOT_ACTUALLY)]
    short = found is not None and cover.falls_short(found, least)
    if not named and not short:
        return None
    told = [*named, *([_share(found)] if found is not None and cover.share(found) is not None else [])]
    return f"--strict: {'; '.join(told)}{f' (at least {least:.0%} is asked for)' if short else ''}"


def _share(found: Coverage) -> str:
    what, done = (
        ("weights are stored", found.label) if cover.judged_by(found) == "weights" else ("MACs ran", found.wanted)
    )
    return f"{cover.share(found):.0%} of the {what} in {done.removeprefix('weight-only-')}"


def _flags(done: Finished) -> tuple[str, ...]:
    calibrated = done.built.model.precision.scheme == "static"
    found = [flag for flag in done.built.model.flags if calibrated or flag != NO_DATA]
    found += [*done.built.artifact.flags, *done.check.flags, *([done.unchanged] if done.unchanged else [])]
    if done.check.quality is not None and done.check.quality.underpowered:
        found.append("underpowered")
    words = (reason.partition(":")[0] for reason in done.latency.reasons) if done.latency else ()
    found += [word for word in words if word in {"ci_disagree", "estimator_disagree"}]
    found += floor_flags(done.roofline, done.latency)
    found += ["host_unfit"] if "host_verdict" in done.host else []
    if done.latency is not None and done.latency.noise != "ok":
        found.append(done.latency.noise)
    return tuple(dict.fromkeys(found))


def _provenance(state: TargetState | None, context: Context, planned: PlannedCell) -> Mapping[str, str]:
    if state is None:
        return {}
    return {
        "runtime": f"{state.availability.runtime} {state.availability.version}".strip(),
        "sparsity_kernels": ", ".join(context.sparsity(planned)) or "none",
        "target_plugin": planned.target.plugin,
        **({"channel_multiple": str(state.capabilities.channel_multiple)} if state.capabilities else {}),
        **({"control": planned.control} if planned.control else {}),
        **({"runs_on": planned.runs_on} if planned.runs_on != "here" else {}),
        **{f"device {name}": value for name, value in state.availability.device.items()},
    }


def placement_flags(
    placements: Sequence[Placement],
    built: Built,
    reason: str,
    sparsity: Sequence[str],
    *,
    claimed: bool,
) -> tuple[Coverage, tuple[str, ...]]:
    """Return coverage and flags of a cell from what ran and what its artifact holds.

    Args:
        placements: What ran.
        built: The cell.
        reason: Why there are no placements.
        sparsity: Patterns for which the target has a kernel.
        claimed: Whether a method of the pipeline asked for the precision.
    """
    precision = built.model.precision
    weights = built.artifact.weight_bytes
    found = cover.coverage(placements, precision, reason, weight_bytes=weights, claimed=claimed)
    return found, cover.flags(placements, precision, found, sparsity)
