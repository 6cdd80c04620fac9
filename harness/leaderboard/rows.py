"""One record to one row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness import claims
from harness.leaderboard.beyond import beyond
from harness.leaderboard.control import beside_control
from harness.leaderboard.gates import retained, standard_passes
from harness.leaderboard.intervals import bounds, mirrored
from harness.leaderboard.notes import all_flags, note
from harness.leaderboard.parts import parts_text
from harness.leaderboard.why import why_slow
from harness.stats.coverage import judged_by, share
from harness.types import Interval, Latency, Quality, Record

if TYPE_CHECKING:
    from harness.store import Run

_BUILD = ("fit", "compress", "export", "lower")
Row = dict[str, Any]


def row(record: Record, run: Run) -> Row:
    """Return a record's values by column; what is not known is None."""
    anchor = run.by_cell.get(record.anchor or "")
    found = {
        **_what(record, run),
        **(_quality(record.quality) if record.quality else {}),
        **(_latency(record.latency) if record.latency else {}),
        **_cost(record, anchor),
        **_roofline(record),
        **_energy(record),
        **_how(record),
        **beyond(record),
        "flags": " ".join(all_flags(record)),
        "why": "; ".join(why_slow(record, anchor, run.info.host_facts if run.info else {})),
        "parts": parts_text(record),
        "note": "; ".join(text for text in (note(record), beside_control(record, run)) if text),
    }
    found |= retained(found)
    return found | standard_passes(found)


def runs_no_model(record: Record) -> bool:
    """Tell whether a record is of a target that runs no model, such as ``null``."""
    return claims.NO_MODEL in record.flags or (record.artifact is not None and claims.NO_MODEL in record.artifact.flags)


def _what(record: Record, run: Run) -> Row:
    overhead = runs_no_model(record)
    measured = record.status == "ok" and record.kind == "measured" and record.anchor is not None
    options = record.cell.options
    return {
        "host": run.unit,
        "run": run.info.run_id if run.info else run.path.name,
        "profile": record.profile,
        "workload": record.labels.get("workload", record.cell.workload.name),
        "method": record.labels.get("method", "+".join(step.name for step in record.cell.pipeline)),
        "target": record.labels.get("target", record.cell.target.name),
        "threads": options.threads,
        "batch": options.batch,
        "status": record.status,
        "stage": record.stage,
        "blame": record.blame,
        "reason": record.reason,
        "kind": record.kind,
        "ranked": measured and not overhead,
        "overhead": overhead,
    }


def _quality(quality: Quality) -> Row:
    scale = 100.0 if quality.unit == "%" else 1.0  # "%" means that a workload gives a share, 0..1
    return {
        "metric": quality.metric,
        "metric_unit": quality.unit,
        "higher_is_better": quality.higher_is_better,
        **bounds("quality", quality.value, scale),
        **bounds("drop", (mirrored(quality.difference) if quality.higher_is_better else quality.difference), scale),
        "items": quality.items,
        "flips": quality.flips,
        "lost": quality.lost,
        "gained": quality.gained,
        "p_value": quality.p_value,
        "underpowered": quality.underpowered,
    }


def inverse(interval: Interval | None) -> Interval | None:
    """Turn a ratio of times into a speed-up: the bounds change places."""
    if interval is None or interval.point <= 0:
        return None
    low = 1 / interval.high if interval.high else None
    high = 1 / interval.low if interval.low else None
    return Interval(1 / interval.point, low, high, interval.level, interval.method)


def _latency(latency: Latency) -> Row:
    return {
        **bounds("p50", latency.p50_ns, end="_ns"),
        "p90_ns": latency.p90_ns,
        "p99_ns": latency.p99_ns,
        "time_to_first_inference_ns": latency.time_to_first_inference_ns,
        "throughput_per_s": latency.throughput_per_s,
        **bounds("speedup", Interval(1.0, None, None) if latency.verdict == "anchor" else inverse(latency.ratio)),
        "verdict": latency.verdict,
        "noise": latency.noise,
        "noise_reasons": "; ".join(latency.reasons),
        "launches": latency.launches,
        "discarded": latency.discarded,
    }


def _cost(record: Record, anchor: Record | None) -> Row:
    found: Row = {}
    if record.memory is not None:
        found |= {
            "peak_memory_bytes": record.memory.peak_bytes,
            "model_memory_bytes": record.memory.peak_bytes - record.memory.floor_bytes,
            "device_memory_bytes": record.memory.device_bytes,
        }
    ours, theirs = record.artifact, anchor.artifact if anchor else None
    if ours is not None:
        found |= {"artifact_bytes": ours.artifact_bytes, "stored_bytes": ours.stored_bytes, "stored_as": ours.stored_as}
    if ours is not None and theirs is not None:
        saved, whole = sum(ours.weight_bytes.values()), sum(theirs.weight_bytes.values())
        found["weight_bytes_removed"] = 1 - saved / whole if saved and whole else None
        found["compression"] = _share(theirs.artifact_bytes, ours.artifact_bytes)
        found["stored_compression"] = _share(theirs.stored_bytes, ours.stored_bytes)
    return found


def _roofline(record: Record) -> Row:
    found: Row = {}
    weights = record.artifact.weight_bytes if record.artifact else {}
    if weights:
        most = sorted(weights, key=lambda name: -weights[name])
        found = {"weight_bytes": sum(weights.values()), "weight_dtypes": ", ".join(most)}
    top = record.roofline
    if top is not None:
        found |= {
            "floor_ns": top.floor_ns,
            "percent_of_roofline": top.percent,
            "roofline_bound": top.bound or None,
            "roofline_reason": top.reason,
        }
    return found


def _energy(record: Record) -> Row:
    found = record.energy
    if found is None:
        return {}
    items = record.cell.options.batch
    return {
        **bounds("energy", found.joules, end="_j"),
        "energy_active_j": found.active_joules.point if found.active_joules else None,
        "watts": found.watts.point if found.watts else None,
        "idle_watts": found.idle_watts,
        "items_per_j": items / found.joules.point if found.joules and found.joules.point > 0 else None,
        "energy_level": found.level,
        "energy_source": found.source,
        "energy_reason": found.reason,
    }


def _share(above: int, below: int) -> float | None:
    return above / below if below else None


def _how(record: Record) -> Row:
    found: Row = {
        "anchor_id": record.anchor,
        "is_anchor": record.anchor == record.cell_id,
        "anchor_precision": record.anchor_precision,
        "anchor_reason": record.anchor_reason,
        "build_s": sum(record.seconds.get(stage, 0.0) for stage in _BUILD) if record.seconds else None,
        "runtime": record.provenance.get("runtime"),
        "cell_id": record.cell_id,
        "inputs_sha256": record.inputs_sha256,
        "host_id": record.host_id,
        "finished_utc": record.finished_utc,
        **_effect(record),
        **_claimed(record),
    }
    if record.artifact is not None:
        found |= {"precision": record.artifact.realised, "how": record.artifact.how}
    if record.coverage is not None:
        cover = record.coverage
        found |= {
            "wanted": cover.wanted,
            "coverage": share(cover),
            "coverage_by": judged_by(cover) or "unknown",
            "coverage_weights": cover.by_weights,
            "coverage_macs": cover.by_macs,
            "coverage_ops": cover.by_op,
            "coverage_time": cover.by_time,
            "coverage_reason": cover.reason,
        }
    return found


def _claimed(record: Record) -> Row:
    """Return what the steps were asked for, and what became less by all of them together."""
    steps = [at for at, step in enumerate(record.lineage) if step.asked is not None]
    done = [text for at in steps if (text := claims.did(record.lineage[:at], record.lineage[at]))]
    words = [f"{step.name}: {step.asked.words}" for step in record.lineage if step.asked is not None]
    first = next((step.effect for step in record.lineage if step.effect), {})
    gone = claims.removed(first, claims.counts_before(record.lineage))
    return {
        "asked": "; ".join(words),
        "achieved": "; ".join(done),
        **{f"{name}_removed": share for name, share in gone.items() if steps},
    }


def _effect(record: Record) -> Mapping[str, int]:
    """Return the sizes that the last step to measure them left."""
    found: dict[str, int] = {}
    for made in record.lineage:
        for name in ("parameters", "nonzero_parameters", "macs"):
            if name in made.effect:
                found[name] = round(made.effect[name])
    return found
