"""Bench one file, or one network, and keep what came of it as a row."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_files import fetch
from benchmarks.real_files.catalogue import FILES, File
from harness.store import find_runs, load_run
from harness.types import Record

ROOT = Path(__file__).parents[2]
METHODS = ("baseline", "int8", "dynamic-int8", "weight-only", "fp16")
TARGETS = ("onnxruntime", "openvino", "tflite")
NETWORKS = ("unet", "detector", "ctc", "language_model", "recommender", "siamese", "bilstm", "grouped")
QUICK = {("unet", "workload"), ("detector", "workload"), ("bilstm", "pt2"), ("recommender", "pt2")}
SECONDS = 1500
# Launches cut short: what ran and how right it was are the same, figures of speed are indicative at best.
SHORT = """
import dataclasses
from harness import profiles
profiles.PROFILES["quick"] = dataclasses.replace(
    profiles.PROFILES["quick"], sets=1, rounds=1, batch_ns=1_000_000, batch_max_ns=20_000_000, measured_ns=1_000_000,
    warmup_iterations=1, warmup_ns=1_000_000, warmup_max_ns=20_000_000, calm_seconds=0.0, backoff_seconds=0.0,
)
from harness.cli.main import main
main()
"""


@dataclass(frozen=True)
class Case:
    """A row's model: a file of somebody else's, or a network of ours by one of two ways in.

    Attributes:
        way: "file", "workload" or "pt2".
    """

    name: str
    way: str
    quick: bool = False
    file: File | None = None


CASES = (
    *(Case(file.name, "file", file.quick, file) for file in FILES),
    *(Case(name, way, (name, way) in QUICK) for name in NETWORKS for way in ("workload", "pt2")),
)  # fmt: skip


@dataclass(frozen=True)
class CellRow:
    """What a table tells of one cell; ``db`` is against the reference of the framework, else against the anchor."""

    target: str
    method: str
    status: str
    reason: str = ""
    db: float | None = None
    against: str = ""
    wrong: str = ""
    lost: int = 0
    speedup: float | None = None
    noise: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One model on all targets.

    Attributes:
        refused: Why nothing was planned, in the command's own words; empty where a run was made.
    """

    name: str
    way: str
    does: str
    package: str
    bytes: int
    seconds: float
    short: bool
    refused: str = ""
    cells: tuple[CellRow, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


def bench(case: Case, *, short: bool, methods: Sequence[str] = METHODS, targets: Sequence[str] = TARGETS) -> Row:
    """Run ``harness bench`` on a case as its user would.

    Raises:
        NotThere: Its package cannot be had here.
    """
    with tempfile.TemporaryDirectory(prefix="real-files-") as made:
        folder = Path(made)
        model, arguments = _arguments(case, folder)
        runner = ["-c", SHORT] if short else ["-m", "harness"]
        command = [
            sys.executable, *runner, "bench", *arguments, "--methods", ",".join(methods),
            "--targets", ",".join(targets), "--out", str(folder / "results"),
        ]  # fmt: skip
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
        runs = find_runs(folder / "results") if (folder / "results").is_dir() else ()
        records: Sequence[Record] = load_run(runs[-1]).records if runs else ()
        file = case.file
        return Row(
            case.name, case.way, file.does if file else "", file.package if file else "",
            model.stat().st_size if model else 0, time.monotonic() - started, short,
            "" if records else _last_words(done.stderr), tuple(map(_cell, records)), _versions(),
        )  # fmt: skip


def _arguments(case: Case, folder: Path) -> tuple[Path | None, list[str]]:
    if case.file is not None:
        model, data = fetch.local(case.file), folder / "data.npz"
        arrays: dict[str, Any] = dict(case.file.data(case.file.items))
        np.savez(data, **arrays)
        return model, ["--model", str(model), "--data", str(data), *case.file.bench]
    if case.way == "workload":
        return None, ["--workload", f"benchmarks.real_files.networks:{case.name}"]
    from benchmarks.real_files.networks import write_program

    model, data = write_program(case.name, folder)
    return model, ["--model", str(model), "--data", str(data)]


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith(("error:", "hint:"))]
    return " ".join(found or lines[-1:]).removeprefix("error: ")


def _cell(record: Record) -> CellRow:
    quality, oracle, latency = record.quality, record.oracle, record.latency
    db, against = (oracle.sqnr_db, oracle.oracle) if oracle and oracle.sqnr_db is not None else (None, "")
    if db is None and quality is not None and "sqnr_db" in quality.fidelity:
        db, against = quality.fidelity["sqnr_db"], "its anchor"
    ratio = latency.ratio.point if latency and latency.ratio else None
    return CellRow(
        record.labels["target"], record.labels["method"], record.status, record.reason or "", db, against,
        oracle.wrong if oracle else "", sum(item.lost_count for item in oracle.outputs.values()) if oracle else 0,
        None if not ratio else 1 / ratio, latency.noise if latency else "", record.flags,
    )  # fmt: skip


def _versions() -> dict[str, str]:
    found = {}
    for name in ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def row_file(case: Case) -> Path:
    """Return where a case's row is kept between runs of the command."""
    return fetch.cache_folder() / "rows" / f"{case.way}-{case.name.replace(' ', '-')}.json"


def keep(case: Case, row: Row) -> None:
    """Write a row for the table."""
    path = row_file(case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(row), indent=1))


def kept(case: Case) -> Row | None:
    """Read a row again; ``None`` where the case was not run here."""
    path = row_file(case)
    if not path.is_file():
        return None
    held = json.loads(path.read_text())
    cells = tuple(CellRow(**{**cell, "flags": tuple(cell["flags"])}) for cell in held.pop("cells"))
    return Row(**held, cells=cells)
