"""A target that misbehaves while it is measured costs its own cell, in a real run of the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import way
from plugin_factory import make_plugin

SOURCE = """
from __future__ import annotations
import hashlib, os
from dataclasses import dataclass, replace
from harness.api import Artifact, Availability, Capabilities, MethodSpec, NoParams, TargetSpec, TensorSpec, Unsupported
from harness.api import hookimpl, param

@dataclass(frozen=True)
class Params:
    deed: str = param("none")

def lower(model, params, options, job):
    raw = model.path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    return Artifact(model.path, "npy", digest, "float32", "the model's own file", len(raw), len(raw))

class Session:
    def __init__(self, artifact, deed, purpose):
        import numpy as np
        self.weights, self.deed = np.load(artifact.path), deed if purpose == "memory" else "none"
        self.inputs = {"x": TensorSpec("float32", (None, 8))}
        self.outputs = {"y": TensorSpec("float32", (None, 1))}
        if purpose == "memory" and deed == "overwrite":
            artifact.path.chmod(0o644)
            np.save(artifact.path, self.weights * 0 + 1)
        if purpose == "memory" and deed == "delete":
            artifact.path.unlink()

    def run(self, feeds):
        if self.deed == "interrupt":
            raise KeyboardInterrupt
        if self.deed == "exit":
            raise SystemExit(0)
        return {"y": (feeds["x"] @ self.weights)[:, None]}

    def close(self):
        pass

@hookimpl
def harness_methods():
    def much(model, params, job):
        raise RuntimeError("first line\\n" + "and more " * 50_000)
    def refused(model, params, job):
        raise Unsupported("no way " * 50_000)
    deeds = {"evil-text": much, "evil-refusal": refused, "evil-same": lambda model, params, job: model}
    for name, compress in deeds.items():
        yield MethodSpec(name=name, family="none", summary="misbehaves", params=NoParams, compress=compress,
                         consumes=frozenset(), defaults=())

@hookimpl
def harness_targets():
    yield TargetSpec(
        name="evil", summary="misbehaves", params=Params, accepts=frozenset({"way"}), lower=lower,
        probe=lambda params: Availability(True, runtime="numpy", version="1"),
        capabilities=lambda params: Capabilities("1", {"float32": "numpy"}),
        open=lambda artifact, params, options, purpose: Session(artifact, params.deed, purpose),
    )
"""


@pytest.fixture
def toy(tmp_path):
    found = way.install(tmp_path)
    found.env["PYTHONPATH"] += f"{os.pathsep}{make_plugin(tmp_path / 'evil', 'evil', SOURCE)}"
    return found


def test_what_a_session_does_to_its_file_reaches_no_other_cell(toy):
    deeds = ("overwrite", "delete", "interrupt", "exit", "none")
    targets = " ".join(f"evil:deed={deed}" for deed in deeds)
    done = toy.run("--methods", "baseline", "--targets", f"{targets} way-a", "--format", "csv")
    rows = {target.removeprefix("evil:deed="): row for (_method, target), row in toy.records().items()}
    for name in ("evil", "way-a"):  # "none" is the default and is not written
        assert rows[name]["status"] == "ok", done.stderr
        assert rows[name]["oracle"]["reason"] == ""
    assert (rows["overwrite"]["status"], rows["overwrite"]["stage"]) == ("failed", "accuracy")
    assert rows["delete"]["status"] == "failed"
    for name, said in (("interrupt", "KeyboardInterrupt"), ("exit", "SystemExit")):
        assert rows[name]["status"] == "failed"
        assert said in rows[name]["reason"]
        assert (rows[name]["stage"], rows[name]["blame"]) == ("memory", "evil")
    again = toy.run("--methods", "baseline", "--targets", "evil way-a", "--format", "csv", "--fresh")
    assert again.returncode == 0, again.stderr


def test_texts_without_end_and_methods_that_did_nothing_are_told(toy):
    done = toy.run("--methods", "evil-text evil-refusal evil-same", "--targets", "way-a", "--format", "csv")
    rows = {method: row for (method, _target), row in toy.records().items()}
    assert rows["baseline"]["status"] == "ok", done.stderr
    for name, said in (("evil-text", "RuntimeError: first line"), ("evil-refusal", "no way no way")):
        reason = rows[name]["reason"]
        assert said in reason
        assert len(reason) < 500
        log = toy.runs()[-1] / reason.rpartition("(all of it: ")[2].rstrip(")")
        assert len(log.read_text()) > 100_000
    assert "and more" not in rows["evil-text"]["reason"]
    assert max(map(len, done.stdout.splitlines())) < 4000
    assert max(map(len, done.stderr.splitlines())) < 2000
    assert "not_actually_changed" in rows["evil-same"]["flags"]
    assert "not_actually_changed" in done.stdout


INTERRUPTED = """
import signal
from harness import faults
signal.signal(signal.SIGINT, signal.default_int_handler)
faults.listen()
try:
    with faults.called():
        raise KeyboardInterrupt
except faults.Escaped as error:
    print("the plugin's:", error)
try:
    with faults.called():
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("the user's")
"""


def test_a_plugins_interrupt_is_told_from_the_users():
    """In a process of its own: handlers are global, and runtimes leave this one with a small stack for signals."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["the plugin's: KeyboardInterrupt", "the user's"]
