"""The kit is proved: each planted fault is found by the check that names it, and a sound plugin passes them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit_plugin import plant

from harness.testing import CHECKS

RUN = """
import sys
from pathlib import Path
from harness.codec import dumps
from harness.plugins import load_registry
from harness.testing.bench import Settings
from harness.testing.run import check_offer, check_plugin
kind, name, limit, cache = sys.argv[1:]
registry = load_registry(only={"kit"})
settings = Settings(samples=("kit",), limit_s=float(limit), cache=Path(cache))
found = check_plugin(registry, "kit", settings).results if kind == "plugin" else check_offer(registry, kind, name, settings)
sys.__stdout__.write(dumps(list(found)).decode())
"""
OFFERS = {"workload": "kit-dense", "method": "kit-zero", "exporter": "kit-pack", "target": "kit-numpy", "plugin": "kit"}


def check(tmp_path: Path, kind: str, fault: str, *, limit_s: float = 60) -> list[dict]:
    site = plant(tmp_path, fault)
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_RUNTIME_DIR": str(tmp_path)}
    args = [sys.executable, "-P", "-c", RUN, kind, OFFERS[kind], str(limit_s), str(tmp_path / "cache")]
    done = subprocess.run(args, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrap(dictionary: str, field: str, body: str) -> str:
    """Replace a function of a spec by one that may call the sound one."""
    return f"sound = {dictionary}[{field!r}]\n{body}\n{dictionary}[{field!r}] = planted"


def method(body: str) -> str:
    return wrap("METHOD", "compress", f"def planted(model, params, job):\n    import numpy as np\n    {body}")


def lowering(body: str) -> str:
    return wrap("TARGET", "lower", f"def planted(model, params, options, job):\n    {body}")


def session(members: str) -> str:
    return f"class Planted(Session):\n    {members}\ndef planted(a, p, o, u):\n    return Planted(a.path, o)\nTARGET['open'] = planted"


def running(body: str) -> str:
    return session(f"def run(self, arrays):\n        import numpy as np\n        {body}")


FAULTS: dict[str, tuple[str, str, str]] = {
    # name: (kind, the check that finds it, the fault)
    "framework at import": ("plugin", "imports", "import onnx"),
    "hook that raises": ("plugin", "loads", "WORKLOAD['nonsense'] = 1"),
    "name with capitals": ("method", "naming", "METHOD['name'] = 'kit-zero'\nMETHOD['summary'] = 'x'\n"
                           "Share.__annotations__['Bad_Share'] = 'float'\n"
                           "Share = dataclasses.make_dataclass('Share', [('share', 'float', param(0.5, 'h', gt=0, lt=1)), "
                           "('badShare', 'float', param(0.5, 'h'))], frozen=True)\nMETHOD['params'] = Share"),
    "summary with a full stop": ("method", "docs", "METHOD['summary'] = 'It zeroes weights.'"),
    "parameter without help": ("method", "docs", "Share = dataclasses.make_dataclass('Share', [('share', 'float', param(0.5))], "
                               "frozen=True)\nMETHOD['params'] = Share"),
    "default out of range": ("method", "params", "Share = dataclasses.make_dataclass('Share', [('share', 'float', "
                             "param(2.0, 'h', lt=1))], frozen=True)\nMETHOD['params'] = Share"),
    "unknown capability in reads": ("method", "declarations", "METHOD['reads'] = frozenset({'channels'})"),
    "undeclared capability read": ("method", "reads", method("job.hardware.channel_multiple\n    return sound(model, params, job)")),
    "test split asked for": ("method", "test-split", method("job.data.split('test')")),
    "incoming model changed": ("method", "input-kept", method(
        "np.save(model.path, np.load(model.path) * 0.5)\n    return sound(model, params, job)")),
    "unseeded": ("method", "seed", method(
        "out = sound(model, params, job)\n    w = np.load(out.path)\n    w[-1] += np.random.default_rng().normal()\n"
        "    np.save(out.path, w)\n    return out")),
    "no change": ("method", "effect", method("shutil.copy(model.path, job.out / 'm.npy')\n"
                  "    return dataclasses.replace(model, path=job.out / 'm.npy')")),
    "untrue effect record": ("method", "effect-record", method(
        "(job.out / 'effect.json').write_text('{\"nonzero_parameters\": 1}')\n    return sound(model, params, job)")),
    "undeclared format": ("method", "format", method("return dataclasses.replace(sound(model, params, job), format='other')")),
    "outputs renamed": ("method", "interface", method("return dataclasses.replace(sound(model, params, job), outputs=('z',))")),
    "NaN weights": ("method", "finite", method(
        "out = sound(model, params, job)\n    np.save(out.path, np.load(out.path) * np.float32('nan'))\n    return out")),
    "crash on a layer": ("method", "unsupported", method("raise KeyError('conv')")),
    "returns nothing": ("method", "runs", method("sound(model, params, job)")),
    "written outside": ("method", "outside", method(
        "Path(job.out.parent / 'stray.txt').write_text('x')\n    return sound(model, params, job)")),
    "thread left": ("method", "threads-left", method(
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n    return sound(model, params, job)")),
    "file left open": ("method", "files-left", method(
        "STATE.setdefault('files', []).append(open(model.path, 'rb'))\n    return sound(model, params, job)")),
    "environment changed": ("method", "environment", method("os.environ['KIT'] = 'x'\n    return sound(model, params, job)")),
    "another precision than announced": ("method", "wants", "METHOD['wants'] = lambda params: Precision('int8', 'int8', 'static')"),
    "segmentation fault": ("method", "crash", method("import signal; os.kill(os.getpid(), signal.SIGSEGV)")),
    "hang": ("method", "time-limit", method("time.sleep(600)")),
    "exporter drops an input": ("exporter", "interface", wrap(
        "EXPORTER", "export", "def planted(m, o, j):\n    return dataclasses.replace(sound(m, o, j), inputs={})")),
    "time in the exported file": ("exporter", "seed", wrap("EXPORTER", "export", (
        "def planted(m, o, j):\n    out = sound(m, o, j)\n    out.path.write_bytes(out.path.read_bytes() + os.urandom(8))\n"
        "    return out"))),
    "exported weights wrong": ("exporter", "outputs", wrap("EXPORTER", "export", (
        "def planted(m, o, j):\n    import numpy as np\n    np.save(j.out / 'w.npy', np.load(m.path) * 1.5)\n"
        "    return sound(dataclasses.replace(m, path=j.out / 'w.npy'), o, j)"))),
    "probe that raises": ("target", "probe", "def planted(params):\n    raise OSError('no device')\nTARGET['probe'] = planted"),
    "gap without a reason": ("target", "capabilities", "TARGET['capabilities'] = lambda p: Capabilities('1', {'float32': 'n'}, "
                             "gaps={'int8': ''})"),
    "int8 accepted silently": ("target", "unsupported", lowering(
        "return sound(dataclasses.replace(model, precision=Precision()), params, options, job)")),
    "size made up": ("target", "artifact", lowering(
        "return dataclasses.replace(sound(model, params, options, job), artifact_bytes=10)")),
    "artifact elsewhere": ("target", "format", lowering(
        "out = sound(model, params, options, job)\n    path = out.path.rename(job.out.parent / f'{job.out.name}.npy')\n"
        "    return dataclasses.replace(out, path=path)")),
    "other precision realised": ("target", "realised", lowering(
        "return dataclasses.replace(sound(model, params, options, job), realised='int8')")),
    "wrong outputs": ("target", "outputs", running("return {'y': Session.run(self, arrays)['y'] * 1.01}")),
    "dtype not as declared": ("target", "dtypes", running("return {'y': Session.run(self, arrays)['y'].astype('float64')}")),
    "input overwritten": ("target", "input-kept", running(
        "out = Session.run(self, arrays)\n        arrays['x'] *= 0\n        return out")),
    "state between runs": ("target", "repeatable", running(
        "self.n = getattr(self, 'n', 0) + 1\n        return {'y': Session.run(self, arrays)['y'] + np.float32(1e-6 * self.n)}")),
    "items mixed in a batch": ("target", "batch", running(
        "y = Session.run(self, arrays)['y']\n        return {'y': y - y.mean() + y[:1]}")),
    "short batches cut": ("target", "batch", running("return {'y': Session.run(self, arrays)['y'][:3]}")),
    "threads change the result": ("target", "threads", running(
        "return {'y': Session.run(self, arrays)['y'] * np.float32(1 + (self.threads - 1) * 1e-2)}")),
    "threads not honoured": ("target", "threads-honoured", session("def effective(self):\n        return {'threads': '8'}")),
    "burns a second core": ("target", "threads-honoured", session(
        "def run(self, arrays):\n        import numpy as np\n        big = np.ones((1500, 1500), 'float32')\n"
        "        t = [threading.Thread(target=lambda: big @ big) for _ in range(2)]\n        [x.start() for x in t]\n"
        "        [x.join() for x in t]\n        return Session.run(self, arrays)")),
    "second open fails": ("target", "reopen", "def planted(a, p, o, u):\n    STATE['opened'] += 1\n    if STATE['opened'] > 1:\n"
                          "        raise RuntimeError('device is busy')\n    return Session(a.path, o)\nTARGET['open'] = planted"),
    "close raises": ("target", "close", session("def close(self):\n        raise RuntimeError('still in use')")),
    "thread kept by a session": ("target", "threads-left", session(
        "def close(self):\n        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()")),
    "file kept by a session": ("target", "close", session(
        "def close(self):\n        STATE.setdefault('f', []).append(open(__file__))")),
    "shares that do not sum up": ("target", "placements", session(
        "def placements(self):\n        return (Placement('MatMul', 'm', 'n', 'cpu', 'float32', 8, 0.4),)")),
    "MACs counted twice": ("target", "placements", session(
        "def placements(self):\n        return (Placement('MatMul', 'm', 'n', 'cpu', 'float32', 16, 1.0),)")),
    "input renamed": ("target", "interface", session(
        "def __init__(self, path, options):\n        Session.__init__(self, path, options)\n"
        "        self.outputs = {'z': TensorSpec('float32', (None, 1))}")),
    "torch needed to lower": ("target", "no-framework", lowering("import torch\n    return sound(model, params, options, job)")),
    "splits that share items": ("workload", "splits", "WORKLOAD['split'] = lambda p, name: split(p, 'test')"),
    "splits drawn anew": ("workload", "splits", "def planted(p, name):\n    import numpy as np\n    s = split(p, name)\n"
                          "    return Split({'x': s.inputs['x'] + np.random.default_rng().random()\n    .__float__()}, s.labels) "
                          "if False else Split({'x': (s.inputs['x'] + np.float32(time.time() % 1e3)).astype('float32')}, s.labels)\n"
                          "WORKLOAD['split'] = planted"),
    "scores of all items together": ("workload", "score", "def planted(o, l):\n    import numpy as np\n    s = score(o, l)\n"
                                     "    return np.cumsum(s, axis=0) % 2\nWORKLOAD['score'] = planted"),
    "metric that is no number": ("workload", "score", "WORKLOAD['aggregate'] = lambda s: float('nan')"),
    "gap that is closed": ("method", "known-gaps", "METHOD['known_gaps'] = {'seed': 'cuDNN is not repeatable'}"),
}  # fmt: skip
SLOW = set(FAULTS) - {"no change", "undeclared capability read", "wrong outputs", "hang", "splits that share items", "gap that is closed"}


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 20
    assert {check for _kind, check, _fault in FAULTS.values()} <= set(CHECKS)


def test_each_check_has_a_fault_that_it_finds() -> None:
    untested = set(CHECKS) - {check for _kind, check, _fault in FAULTS.values()}
    assert untested <= {"layers"}, "needs a torch model: see test_kit_torch"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in FAULTS])
def test_a_fault_is_found_by_the_check_that_names_it(name: str, tmp_path: Path) -> None:
    kind, wanted, fault = FAULTS[name]
    results = check(tmp_path, kind, fault, limit_s=6 if name == "hang" else 60)
    failed = [result for result in results if result["state"] == "failed"]
    assert wanted in {result["check"] for result in failed}, failed
    assert all(result["expected"] and result["seen"] and result["fix"] for result in failed)


@pytest.mark.parametrize("kind", ["method", "target", pytest.param("plugin", marks=pytest.mark.slow)])
def test_a_sound_plugin_passes(kind: str, tmp_path: Path) -> None:
    results = check(tmp_path, kind, "")
    assert [result for result in results if result["state"] in {"failed", "skipped"}] == []
    assert len(results) > 12


def test_a_declared_gap_is_no_failure(tmp_path: Path) -> None:
    fault, gap = FAULTS["no change"][2], "METHOD['known_gaps'] = {'effect': 'to be mended'}"
    states = {result["check"]: result["state"] for result in check(tmp_path, "method", f"{fault}\n{gap}")}
    assert states["effect"] == "gap"
    assert "failed" not in states.values()
