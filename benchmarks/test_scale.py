"""A million records of a thousand machines: how fast they are indexed and ranked, and what that takes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.exchange.index import build_index, write_rows
from harness.exchange.rows import COLUMNS
from harness.store import layout
from harness.store.manifest import START, Entry, digest

HOSTS, CELLS = 1_000, 1_000
RATE, SECONDS, BYTES = 5_000, 5.0, 2 * 2**30
REFERENCE = next((Path(__file__).parents[1] / "results" / "reference").glob("*/2*"))


def computing(who: int) -> float:
    """Return the processor seconds so far, user and system: on a shared machine the clock measures the neighbours."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def rows():
    """1,000,000 rows: 1,000 hosts x 10 workloads x 5 targets x 20 methods, with lognormal times."""
    rng = np.random.default_rng(0)
    methods = [f"method-{number}" for number in range(20)]
    for host in range(HOSTS):
        speeds = np.exp(rng.normal(0.3, 0.4, CELLS))
        for cell in range(CELLS):
            workload, target, method = cell // 100, cell // 20 % 5, cell % 20
            speed = float(speeds[cell])
            known = {
                "host": f"host-{host}", "run": "r", "profile": "quick", "workload": f"workload-{workload}",
                "method": methods[method], "target": f"target-{target}", "status": "ok", "kind": "measured",
                "verdict": "faster" if speed > 1.05 else "unresolved", "noise": "ok", "anchor_precision": "float32",
                "cell_id": f"cell-{cell}", "host_id": f"id-{host}", "finished_utc": "2026-11-24T00:00:00+00:00",
                "p50_ns": 1e6 / speed, "speedup": speed, "drop": 0.1, "throughput_per_s": 1e3 * speed, "threads": 1,
                "batch": 1, "peak_memory_bytes": 60_000_000, "artifact_bytes": 300_000,
            }  # fmt: skip
            yield tuple(known.get(name) for name in COLUMNS)


@pytest.mark.slow
def test_a_million_records_are_ranked_in_five_seconds_and_two_gigabytes(tmp_path):
    index = tmp_path / "index.parquet"
    assert write_rows(rows(), index) == HOSTS * CELLS
    code = (
        "import sys; from harness.cli.main import call; rc = call(['fleet', sys.argv[1], '--json']); "
        "print(open('/proc/self/status').read(), file=sys.stderr); sys.exit(rc)"
    )
    start, before = time.perf_counter(), computing(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, str(index)], capture_output=True, text=True, check=True)
    seconds, used = time.perf_counter() - start, computing(resource.RUSAGE_CHILDREN) - before
    peak = next(int(line.split()[1]) * 1024 for line in done.stderr.splitlines() if line.startswith("VmHWM"))
    lines = json.loads(done.stdout)
    print(f"\n{HOSTS * CELLS} records: {used:.2f} s computing ({seconds:.2f} s by the clock), {peak / 2**20:.0f} MiB")
    assert len(lines) == CELLS
    assert {line["hosts"] for line in lines} == {HOSTS}
    assert used < SECONDS
    assert peak < BYTES


def runs(root: Path, count: int, cells: int) -> None:
    """Write whole runs of real records, each under a host of its own."""
    kept = [json.loads(file.read_bytes()) for file in sorted((REFERENCE / "cells").glob("*.json"))]
    kept = [record for record in kept if record["status"] == "ok"]
    info = (REFERENCE / layout.RUN).read_bytes()
    for host in range(count):
        folder = root / f"host-{host}" / "run"
        (folder / layout.CELLS).mkdir(parents=True)
        (folder / layout.RUN).write_bytes(info)
        lines, previous = [], START
        for cell in range(cells):
            cell_id = f"{host:08x}{cell:08x}"
            raw = json.dumps(kept[cell % len(kept)] | {"cell_id": cell_id}, indent=1).encode()
            (folder / layout.cell_file(cell_id)).write_bytes(raw)
            entry = Entry(cell, layout.cell_file(cell_id), digest(raw), previous)
            lines.append(entry.line)
            previous = digest(entry.line)
        (folder / layout.MANIFEST).write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.slow
def test_five_thousand_records_are_indexed_in_a_second(tmp_path):
    runs(tmp_path, 20, 1_000)
    best = 0.0
    for _ in range(3):
        start, before = time.perf_counter(), computing(resource.RUSAGE_SELF)
        built = build_index(tmp_path)
        seconds, used = time.perf_counter() - start, computing(resource.RUSAGE_SELF) - before
        best = max(best, built.records / used)
        print(f"\n{built.records} records: {used:.2f} s computing ({seconds:.2f} s by the clock)")
    assert built.records == 20_000
    assert built.problems == ()
    assert best >= RATE
