"""pytest-benchmark's JSON, so that ``pytest-benchmark compare`` reads a run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from harness.leaderboard import escape
from harness.stats.dismiss import dismiss_noisy
from harness.stats.order import quantile
from harness.store import Run
from harness.types import Record

VERSION = "5.0.0"  # of the format: what pytest-benchmark 5 writes
_WHISKER = 1.5  # of the interquartile range


def benchmark_json(run: Run) -> bytes:
    """Return the run's latencies as pytest-benchmark stores them: seconds, one benchmark for each measured cell.

    Its rounds are the timed iterations of all launches that counted. The file knows no launches: intervals, noise
    and verdicts stay in ``extra_info``.
    """
    shown = [record for record in run.records if record.status == "ok" and record.latency is not None]
    found = [_benchmark(run, record) for record in shown]
    facts = run.info.host_facts if run.info else {}
    document = {
        "machine_info": {
            "node": run.unit,
            "machine": facts.get("machine", ""),
            "processor": facts.get("machine", ""),
            "system": facts.get("kernel", "").partition(" ")[0],
            "release": facts.get("kernel", "").partition(" ")[2],
            "python_implementation": "",
            "python_version": "",
            "cpu": {"brand_raw": facts.get("cpu_model_name", ""), "count": facts.get("cores_logical", "")},
        },
        "commit_info": {"id": run.info.run_id if run.info else run.path.name, "time": None, "dirty": False},
        "benchmarks": [item for item in found if item is not None],
        "datetime": run.info.started_utc if run.info else "",
        "version": VERSION,
    }
    return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _benchmark(run: Run, record: Record) -> dict[str, Any] | None:
    seconds = [
        ns / 1e9
        for item in dismiss_noisy(
            run.block_of(record), record.cell_id, record.anchor
        )  # what the record's own summary counts
        for launch in item.launches
        if launch.cell_id == record.cell_id and not launch.discarded
        for batch in launch.batches
        for ns in batch.ns
    ]
    if not seconds or record.latency is None:
        return None
    labels = {name: escape.visible(record.labels.get(name, "")) for name in ("workload", "method", "target")}
    options = record.cell.options
    name = f"{labels['method']}@{labels['target']}[{options.threads}-{options.batch}]"
    latency = record.latency
    return {
        "group": labels["workload"],
        "name": name,
        "fullname": f"{labels['workload']}::{name}",
        "params": None,
        "param": None,
        "extra_info": {
            "cell_id": record.cell_id,
            "p50_ns": latency.p50_ns.point,
            "p50_low_ns": latency.p50_ns.low,
            "p50_high_ns": latency.p50_ns.high,
            "launches": latency.launches,
            "noise": latency.noise,
            "verdict": latency.verdict,
            "ratio": None if latency.ratio is None else latency.ratio.point,
        },
        "options": {
            "disable_gc": True,
            "timer": "perf_counter_ns",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _stats(seconds),
    }


def _stats(seconds: Sequence[float]) -> dict[str, Any]:
    mean, spread = (
        statistics.fmean(seconds),
        statistics.pstdev(seconds) if len(seconds) < 2 else statistics.stdev(seconds),
    )
    q1, q3 = quantile(seconds, 0.25), quantile(seconds, 0.75)
    low, high = q1 - _WHISKER * (q3 - q1), q3 + _WHISKER * (q3 - q1)
    out = sum(not low <= value <= high for value in seconds)
    far = sum(abs(value - mean) > spread for value in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": spread,
        "rounds": len(seconds),
        "median": statistics.median(seconds),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": out,
        "stddev_outliers": far,
        "outliers": f"{far};{out}",
        "ld15iqr": min(value for value in seconds if value >= low),
        "hd15iqr": max(value for value in seconds if value <= high),
        "ops": 1 / mean if mean else 0.0,
        "total": sum(seconds),
        "iterations": 1,
    }
