"""A target plugin whose behaviour is a parameter, and the cells that open it: for tests with real workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from plugin_factory import make_plugin

from harness.measure.member import Member
from harness.profiles import PROFILES, Profile
from harness.types import Artifact, Options, Step

SOURCE = """
from __future__ import annotations
import os, sys, time, signal
from dataclasses import dataclass
from harness.api import TargetSpec, TensorSpec, Availability, Capabilities, Placement, Unsupported, hookimpl, param


@dataclass(frozen=True)
class Params:
    mode: str = param("spin")
    ms: float = param(2.0)
    at: str = param("run")
    batch: int = param(0)
    mib: int = param(0)
    scratch: int = param(0)


class Session:
    def __init__(self, params, purpose):
        import numpy as np
        self.np, self.params, self.purpose = np, params, purpose
        self.inputs = {"x": TensorSpec("float32", (params.batch or None, 3))}
        self.outputs = {"y": TensorSpec("float32", (params.batch or None, 2))}
        self.held = np.ones(params.mib * 2**20 // 8) if params.mib else None
        np.ones(params.scratch * 2**20 // 8)
        self.calls = 0

    def run(self, inputs):
        self.calls += 1
        if self.calls > 2:
            misbehave(self.params, "run")
        end = time.perf_counter_ns() + int(self.params.ms * 1e6)
        while time.perf_counter_ns() < end:
            pass
        x = inputs["x"]
        if self.params.mode == "cut":
            x = x[:1]
        return {"y": x[:, :2] * 2}

    def placements(self):
        misbehave(self.params, "placements")
        return (Placement("Spin", "spin0", "loop", "cpu", "float32"),)

    def effective(self):
        return {"threads": "1"}

    def close(self):
        pass


def misbehave(params, at):
    if params.at != at:
        return
    if params.mode == "segfault":
        print("about to fall", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if params.mode == "hang":
        time.sleep(1000)
    if params.mode == "leave":
        os._exit(0)
    if params.mode == "raise":
        raise ValueError("bad weights")
    if params.mode == "unsupported":
        raise Unsupported("no kernel for this")
    if params.mode == "eat":
        import numpy as np
        held = []
        while True:
            held.append(np.ones(2**22))


def open_session(artifact, params, options, purpose):
    misbehave(params, "open")
    return Session(params, purpose)


SPEC = TargetSpec(
    name="spin", summary="spins", params=Params, accepts=frozenset({"onnx"}),
    probe=lambda params: Availability(True), capabilities=lambda params: Capabilities("1", {"float32": "spins"}),
    lower=lambda model, params, options, job: None, open=open_session,
)


@hookimpl
def harness_targets():
    return (SPEC,)
"""

TINY = dataclasses.replace(
    PROFILES["quick"], name="tiny", batch_ns=10_000_000, batch_max_ns=100_000_000, warmup_ns=40_000_000,
    warmup_max_ns=300_000_000,
)  # fmt: skip


def install(tmp_path: Path, monkeypatch) -> None:
    """Make the plugin importable by workers, and keep their state in ``tmp_path``."""
    monkeypatch.setenv("PYTHONPATH", str(make_plugin(tmp_path, "spin-target", SOURCE)))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def member(tmp_path: Path, cell_id: str, options: Options | None = None, **params) -> Member:
    """Return a cell of the plugin above over 70 items."""
    folder = tmp_path / "evaluation"
    if not folder.exists():
        folder.mkdir()
        np.save(folder / "x.npy", np.arange(210, dtype=np.float64).reshape(70, 3))
    file = tmp_path / "model.bin"
    file.write_bytes(b"model")
    artifact = Artifact(file, "onnx", "0" * 64, "float32", "written", 5, 5)
    return Member(cell_id, "spin-target", Step("spin", params), params, artifact, options or Options(), folder)


def profile(**changes) -> Profile:
    """Return a profile short enough for tests."""
    return dataclasses.replace(TINY, **changes)
