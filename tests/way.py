"""A whole plugin on numpy alone (workload, method, target that misbehaves on request), and the way to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from plugin_factory import make_plugin

SOURCE = """
from __future__ import annotations
import hashlib, os, shutil, signal, time
from dataclasses import dataclass, replace
from harness.api import (
    Artifact, Availability, Capabilities, MethodSpec, Model, NoParams, OracleSpec, Placement, Split, TargetSpec,
    TensorSpec, WorkloadSpec, hookimpl, param,
)


@dataclass(frozen=True)
class TaskParams:
    items: int = param(100, ge=1)
    broken_score: bool = param(False)


def inputs(params):
    return {"x": TensorSpec("float32", (None, 8))}


def split(params, name):
    import numpy as np
    rng = np.random.default_rng(["train", "calibration", "selection", "test"].index(name))
    x = rng.normal(size=(params.items, 8)).astype("float32")
    return Split({"x": x}, (x.sum(axis=1) > 0).astype("int64"))


def fit(params, job):
    import numpy as np
    train = job.data.split("train")
    weights = np.linalg.lstsq(train.inputs["x"], train.labels - 0.5, rcond=None)[0].astype("float32")
    np.save(job.out / "model.npy", weights)
    return Model("way", job.out / "model.npy", inputs(params), ("y",))


def score(outputs, labels):
    if outputs["y"].shape[0] == 13:
        raise ValueError("thirteen items")
    return ((outputs["y"][:, 0] > 0) == labels).astype("float64")[:, None]


def zero(model, params, job):
    import numpy as np
    weights = np.load(model.path)
    weights[np.argsort(np.abs(weights))[:4]] = 0
    time.sleep(0.3)
    np.save(job.out / "model.npy", weights)
    return replace(model, path=job.out / "model.npy")


@dataclass(frozen=True)
class KeepParams:
    keep: int = param(5, ge=1, le=8)
    scale: float = param(1.0, gt=0)


def keep(model, params, job):
    import numpy as np
    if params.keep == 3:
        raise ValueError("three cannot be kept")
    weights = np.load(model.path)
    weights[np.argsort(np.abs(weights))[: 8 - params.keep]] = 0
    np.save(job.out / "model.npy", weights * params.scale)
    return replace(model, path=job.out / "model.npy")


@dataclass(frozen=True)
class BreakParams:
    how: str = param("raise")


def broken(model, params, job):
    if params.how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("this method never works")


@dataclass(frozen=True)
class RunParams:
    mode: str = param("ok")
    work: int = param(20000)


class Session:
    def __init__(self, path, params):
        import numpy as np
        self.np, self.params, self.weights = np, params, np.load(path)
        self.inputs = {"x": TensorSpec("float32", (None, 8))}
        self.outputs = {"y": TensorSpec("float32", (None, 1))}

    def run(self, feeds):
        if self.params.mode == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.params.mode == "hang":
            time.sleep(1000)
        if self.params.mode == "leave":
            os._exit(0)
        held = []
        while self.params.mode == "eat":
            held.append(self.np.ones(2**22))
        total = 0
        for number in range(self.params.work):
            total += number
        scale = self.np.float32("nan") if self.params.mode == "nan" else 1
        rows = self.np.roll(feeds["x"], 1, axis=1) if self.params.mode == "shifted" else feeds["x"]
        return {"y": (rows @ self.weights)[:, None] * scale}

    def placements(self):
        precision = "float16" if self.params.mode == "leak" else "float32"
        macs = 10**13 if self.params.mode == "leap" else 8
        return (Placement("MatMul", "matmul", "numpy", "cpu", precision, macs=macs),)

    def effective(self):
        return {"threads": "1"}

    def close(self):
        pass


@dataclass(frozen=True)
class Dot:
    weights: object
    label: str = "numpy dot"

    def run(self, feeds):
        return {"y": (feeds["x"] @ self.weights)[:, None]}


def open_dot(model, job):
    import numpy as np
    yield Dot(np.load(model.path))


@hookimpl
def harness_oracles():
    return [OracleSpec(name="way", summary="numpy", consumes="way", open=open_dot)]


def lower(model, params, options, job):
    shutil.copy(model.path, job.out / "model.npy")
    raw = (job.out / "model.npy").read_bytes()
    digest, size = hashlib.sha256(raw).hexdigest(), len(raw)
    return Artifact(job.out / "model.npy", "npy", digest, "float32", "copied", size, size)


@hookimpl
def harness_workloads():
    return [WorkloadSpec(
        name="way-task", modality="tabular", summary="sign of a sum", params=TaskParams, inputs=inputs, outputs=("y",),
        fit=fit, split=split, score=score, aggregate=lambda scores: float(scores.mean()), produces="way",
        default=False,
    )]


@hookimpl
def harness_methods():
    return [
        MethodSpec(name="way-zero", family="pruning", summary="half", params=NoParams, compress=zero,
                   consumes=frozenset({"way"}), defaults=()),
        MethodSpec(name="way-keep", family="pruning", summary="keep some", params=KeepParams, compress=keep,
                   consumes=frozenset({"way"}), defaults=()),
        MethodSpec(name="way-broken", family="pruning", summary="breaks", params=BreakParams, compress=broken,
                   consumes=frozenset({"way"}), defaults=()),
    ]


@hookimpl
def harness_targets():
    return [TargetSpec(
        name=name, summary="numpy", params=RunParams, accepts=frozenset({"way"}),
        probe=lambda params: Availability(True, runtime="numpy", version="1"),
        capabilities=lambda params: Capabilities("1", {"float32": "numpy"}, gaps={"int8": "it has no int8 kernels"}),
        lower=lower, open=lambda artifact, params, options, purpose: Session(artifact.path, params),
    ) for name in ("way-a", "way-b")]
"""

RUNNER = """
import dataclasses, sys
from harness import profiles
tiny = dataclasses.replace(
    profiles.PROFILES["quick"], rounds=2, batch_ns=2_000_000, batch_max_ns=50_000_000, measured_ns=4_000_000,
    warmup_ns=10_000_000, warmup_max_ns=60_000_000, variants=2,
    energy_window_s=0.05, energy_idle_s=0.05,
)
profiles.PROFILES["quick"] = tiny
from harness.cli.main import main
main()
"""


@dataclass
class Way:
    """The plugin as installed, with folders of its own for cache, state and results."""

    folder: Path
    env: dict[str, str]

    @property
    def out(self) -> Path:
        return self.folder / "results"

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", RUNNER, *args]

    def bench(self, *args: str) -> list[str]:
        return self.command("bench", "--workloads", "way-task", "--out", str(self.out), *args)

    def run(self, *args: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.bench(*args),
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.out.glob("*/*/run.json"))

    def records(self) -> dict[tuple[str, str], dict]:
        """Return the newest run's records by (method, target)."""
        found = [json.loads(path.read_text()) for path in (self.runs()[-1] / "cells").glob("*.json")]
        return {(record["labels"]["method"], record["labels"]["target"]): record for record in found}


def install(tmp_path: Path) -> Way:
    """Install the plugin for subprocesses; nothing of this process changes."""
    site = make_plugin(tmp_path, "way", SOURCE)
    env = {
        **os.environ,
        "PYTHONPATH": str(site),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "HARNESS_BLOCK": "binarization distillation onnx onnxruntime openvino pruning tensorrt tflite torch workloads",
    }
    (tmp_path / "run").mkdir(mode=0o700)
    return Way(tmp_path, env)
