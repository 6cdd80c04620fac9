from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from bench_targets import install, member

from harness import codec, imports
from harness.build.pool import builder_environment
from harness.environment import ALLOWED, THREADS, declare, inherited
from harness.measure import channel
from harness.measure.member import Setup
from harness.measure.process import Worker, WorkerLost


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)


def start(module="harness.measure.worker", budget_s=20.0, **changes) -> Worker:
    known = {"python": None, "threads": 1, "blame": "spin-target", "stage": "latency"} | changes
    return Worker(module, budget_s=budget_s, **known)


def write_module(tmp_path: Path, name: str, source: str) -> str:
    (tmp_path / "site" / f"{name}.py").write_text(source)
    return name


def test_the_worker_imports_numpy_and_one_plugin_and_nothing_heavy(tmp_path, monkeypatch):
    code = (
        "import sys\n"
        "from harness import codec\n"
        "from harness.measure.session import Bench\n"
        "bench = Bench()\n"
        "bench.configure({'setup': codec.loads(dict, open(sys.argv[1], 'rb').read())})\n"
        "bench.open({})\n"
        "print(*sys.modules)\n"
    )
    setup = tmp_path / "setup.json"
    setup.write_bytes(codec.dumps(Setup(member(tmp_path, "x"), "latency", "latency", 0)))
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", code, str(setup)], env=inherited(1), capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"pandas", "scipy", "rich", "click", "torch", "onnx", "onnxruntime", "openvino", "ctypes.util", "asyncio"}
    assert not heavy & set(loaded)
    plugins = {name for name in loaded if name.startswith(("harness_", "plug_"))}
    assert plugins == {"plug_spin_target"}
    ours = {name for name in loaded if name.startswith("harness.")}
    rooms = {"bench", "build", "cli", "leaderboard", "stats", "store"}
    assert not rooms & {name.split(".")[1] for name in ours}
    assert "harness.measure.sets" not in ours


def test_the_environment_is_allow_listed_and_carries_the_threads(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/tmp/evil.so")
    monkeypatch.setenv("OMP_NUM_THREADS", "99")
    monkeypatch.setenv("ANDROID_USER_HOME", "/home/alice")
    monkeypatch.setattr("harness.environment._declared", set())
    found = inherited(3)
    assert all(
        any(fnmatchcase(name, one) for one in (*ALLOWED, *THREADS, "PYTHONUNBUFFERED", imports.VARIABLE))
        for name in found
    )
    declare(["ANDROID_*"])  # as a target's plugin does
    assert inherited(3)["ANDROID_USER_HOME"] == "/home/alice"
    assert {found[name] for name in THREADS} == {"3"}
    assert found["PYTHONPATH"] == os.environ["PYTHONPATH"]


def test_what_probes_and_builds_sees_the_same_host_as_what_measures(monkeypatch):
    """A target that a variable leads to its runtime is not found by one process and lost by the next."""
    for name in ("CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "CONDA_PREFIX", "DYLD_LIBRARY_PATH", "HF_HOME"):
        monkeypatch.setenv(name, "/somewhere")
    building, measuring = builder_environment(1), inherited(1)
    assert {name: value for name, value in building.items() if name != "PYTHONHASHSEED"} == measuring
    assert measuring["CUDA_HOME"] == measuring["NVIDIA_VISIBLE_DEVICES"] == "/somewhere"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("harness", "0.0.1", "has harness 0.0.1"), ("protocol", 99, "speaks worker protocol 99")],
)
def test_another_version_is_a_clear_failure(tmp_path, field, value, words):
    name = write_module(
        tmp_path, "strange",
        "import sys, time\nfrom harness.measure import channel\n"
        f"line = channel.Channel(*map(int, sys.argv[1:]))\nline.send(channel.hello() | {{{field!r}: {value!r}}})\n"
        "line.receive()\n",
    )  # fmt: skip
    with start(name) as worker, pytest.raises(WorkerLost) as lost:
        worker.greet()
    assert words in lost.value.failure.reason
    assert lost.value.failure.blame == "harness"


def test_an_interpreter_without_harness_says_so(tmp_path):
    with start("harness.measure.no_such_module") as worker, pytest.raises(WorkerLost) as lost:
        worker.greet()
    assert "No module named" in lost.value.failure.reason
    assert lost.value.failure.status == "crashed"


def test_what_is_printed_does_not_enter_the_conversation(tmp_path):
    name = write_module(
        tmp_path, "chatty",
        "import os, sys\nprint('x' * 100000, flush=True)\nos.write(2, b'noise')\n"
        "from harness.measure.worker_line import serve, start\n"
        "serve(start(sys.argv[1:]), {'double': lambda m: {'twice': m['value'] * 2}})\n",
    )  # fmt: skip
    with start(name) as worker:
        worker.greet()
        assert worker.ask("double", value=21)["twice"] == 42
        assert worker.ask("double", value="a" * 300_000)["twice"] == "a" * 600_000
        assert worker.tail().endswith("noise")


def test_a_worker_dies_with_its_parent(tmp_path):
    code = (
        "import sys, time\nfrom harness.measure.process import Worker\n"
        "w = Worker('harness.measure.worker', python=None, threads=1, blame='x', stage='latency', budget_s=20)\n"
        "w.greet()\nprint(w.pid, flush=True)\nw.pause()\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while _running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _running(pid)
    parent.stdout.close()


def _running(pid: int) -> bool:
    """Tell whether a process runs; a killed one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_paused_worker_uses_no_cpu_and_goes_on(tmp_path):
    name = write_module(
        tmp_path, "spinner",
        "import sys, threading\nfrom harness.measure.worker_line import serve, start\n"
        "def spin():\n    while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "serve(start(sys.argv[1:]), {'ping': lambda m: {}})\n",
    )  # fmt: skip

    def ticks(pid):
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    with start(name) as worker:
        worker.greet()
        worker.pause()
        before = ticks(worker.pid)
        time.sleep(0.2)
        assert ticks(worker.pid) == before
        worker.proceed()
        worker.ask("ping")


def test_time_is_spent_only_while_waiting_for_this_worker(tmp_path):
    with start(budget_s=0.0) as worker, pytest.raises(WorkerLost) as lost:
        worker.greet()
    assert lost.value.failure.status == "timeout"
    with start(budget_s=15.0) as worker:
        worker.greet()
        left = worker.left_s
        time.sleep(0.1)
        assert worker.left_s == left < 15.0


def test_a_killed_worker_is_told_by_its_signal():
    with start() as worker:
        worker.greet()
        os.kill(worker.pid, signal.SIGTERM)
        with pytest.raises(WorkerLost) as lost:
            worker.ask("warm")
    assert "SIGTERM" in lost.value.failure.reason


def test_frames_survive_being_cut_and_a_closed_pipe_is_noticed():
    reader, writer = os.pipe()
    line = channel.Channel(reader, writer)
    line.send({"kind": "x", "ns": list(range(1000))})
    assert line.receive(1)["ns"][-1] == 999
    os.write(writer, b"\0\0\0\x10half")
    with pytest.raises(channel.Late):
        line.receive(0.05)
    os.close(writer)
    with pytest.raises(channel.Closed):
        line.receive(1)
    os.close(reader)
