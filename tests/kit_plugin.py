"""A small plugin on numpy alone (sample, method, exporter, target, bug) in which one fault at a time can be planted."""

from __future__ import annotations

from pathlib import Path

from plugin_factory import make_plugin

SOURCE = '''
"""A plugin on numpy alone, for the kit's own tests."""
from __future__ import annotations
import dataclasses, gzip, hashlib, os, shutil, threading, time
from dataclasses import dataclass
from pathlib import Path
from harness.api import (
    Artifact, Availability, BugCase, Capabilities, Examined, ExporterSpec, MethodSpec, Model, NoParams, Placement,
    Precision, RuntimeBug, Sample, Split, TargetSpec, TensorSpec, Unsupported, WorkloadSpec, hookimpl, param,
)
STATE = {"opened": 0}


def inputs(params):
    return {"x": TensorSpec("float32", (None, 8))}


def split(params, name):
    import numpy as np
    rng = np.random.default_rng(["train", "calibration", "selection", "test"].index(name))
    x = rng.normal(size=(41, 8)).astype("float32")
    return Split({"x": x}, (x.sum(axis=1) > 0).astype("int64"))


def fit(params, job):
    import numpy as np
    train = job.data.split("train")
    weights = np.linalg.lstsq(train.inputs["x"], train.labels - 0.5, rcond=None)[0].astype("float32")
    np.save(job.out / "model.npy", weights)
    return Model("kit", job.out / "model.npy", inputs(params), ("y",))


def run(model, arrays):
    import numpy as np
    return {"y": (arrays["x"] @ np.load(model.path))[:, None]}


def examine(model, arrays):
    import numpy as np
    weights = np.load(model.path)
    return Examined(weights.size, int((weights != 0).sum()), weights.size)


def score(outputs, labels):
    return ((outputs["y"][:, 0] > 0) == labels).astype("float64")[:, None]


def aggregate(scores):
    return float(scores.mean())


@dataclass(frozen=True)
class Share:
    share: float = param(0.5, "share of the weights that is set to zero", gt=0, lt=1)


def compress(model, params, job):
    import numpy as np
    weights = np.load(model.path)
    rank = np.argsort(np.abs(weights))
    weights[rank[: int(len(weights) * params.share)]] = 0
    np.save(job.out / "model.npy", weights)
    return dataclasses.replace(model, path=job.out / "model.npy")


def export(model, options, job):
    path = job.out / "model.packed"
    path.write_bytes(gzip.compress(model.path.read_bytes(), mtime=0))
    return dataclasses.replace(model, format="kit-packed", path=path)


class Session:
    def __init__(self, path, options):
        import numpy as np
        self.weights = np.load(path)
        self.threads = options.threads
        self.inputs = {"x": TensorSpec("float32", (None, 8))}
        self.outputs = {"y": TensorSpec("float32", (None, 1))}

    def run(self, arrays):
        return {"y": (arrays["x"] * self.weights).sum(axis=1, keepdims=True)}

    def effective(self):
        return {"threads": str(self.threads)}

    def placements(self):
        return (Placement("MatMul", "m", "numpy", "cpu", "float32", macs=8, time_share=1.0),)

    def close(self):
        self.weights = None


def probe(params):
    return Availability(True, runtime="numpy", version="1")


def capabilities(params):
    return Capabilities("1", {"float32": "numpy"}, gaps={"int8": "it has no int8 kernels"})


def lower(model, params, options, job):
    if model.precision.name != "float32":
        raise Unsupported(f"float32 only, not {model.precision.name}")
    path = job.out / "model.npy"
    path.write_bytes(gzip.decompress(model.path.read_bytes()))
    raw = path.read_bytes()
    return Artifact(path, "npy", hashlib.sha256(raw).hexdigest(), "float32", "unpacked", len(raw), len(raw))


def open_session(artifact, params, options, purpose):
    return Session(artifact.path, options)


WORKLOAD = dict(
    name="kit-dense", modality="tabular", summary="sign of a sum", params=NoParams, inputs=inputs, outputs=("y",),
    fit=fit, split=split, score=score, aggregate=aggregate, produces="kit",
    sample=Sample(exercises="kit", run=run, examine=examine),
)
METHOD = dict(name="kit-zero", family="pruning", summary="half of the weights zeroed", params=Share, compress=compress,
              consumes=frozenset({"kit"}), defaults=())
EXPORTER = dict(name="kit-pack", summary="gzip", consumes="kit", produces="kit-packed", export=export)
TARGET = dict(name="kit-numpy", summary="numpy", params=NoParams, accepts=frozenset({"kit-packed"}), probe=probe,
              capabilities=capabilities, lower=lower, open=open_session)
BUG = dict(name="kit-1", summary="a sum is off by one", url="https://example.org/issues/1", runtime="click",
           hit="none", symptom="wrong", case="plug_kit:sums")


def sums():
    import numpy as np

    x = np.arange(3.0)
    return BugCase({"x": x}, {"y": x + 1}, lambda folder: None, lambda built, inputs: {"y": inputs["x"] + 1})


FAULT


@hookimpl
def harness_runtime_bugs():
    return [RuntimeBug(**BUG)]


@hookimpl
def harness_workloads():
    return [WorkloadSpec(**WORKLOAD)]


@hookimpl
def harness_methods():
    return [MethodSpec(**METHOD)]


@hookimpl
def harness_exporters():
    return [ExporterSpec(**EXPORTER)]


@hookimpl
def harness_targets():
    return [TargetSpec(**TARGET)]
'''


def plant(tmp_path: Path, fault: str = "") -> Path:
    """Install the plugin with a fault; return the folder for PYTHONPATH."""
    site = make_plugin(tmp_path, "kit", SOURCE.replace("FAULT\n", f"{fault}\n"))
    meta = next(site.glob("*.dist-info")) / "METADATA"
    meta.write_text(meta.read_text() + "Summary: for tests\n")
    return site
