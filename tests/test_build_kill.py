from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import build_support
import pytest

from harness.build import Built
from harness.errors import Interrupted

DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import build_support
from harness.build import Cache
toy = build_support.Toy(Path({site!r}), Cache(Path({cache!r})), Path({log!r}))
print("building", flush=True)
toy.build("toy-base", "toy-prune", "toy-int8", workloads=("toy-task:seconds={seconds}",))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    yield build_support.install(tmp_path, monkeypatch)
    build_support.forget()


def start(toy, seconds):
    tests = str(Path(build_support.__file__).parent)
    code = DRIVER.format(tests=tests, site=str(toy.site), cache=str(toy.cache.root), log=str(toy.log), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"building\n"
    return process


def builders_of(pid):
    """Return the processes that are builders of this parent, dead parents included (they are named in the command)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"harness.build.worker" in words and words[-2:-1] == [str(pid).encode()]:
                found.append(int(folder.name))
    return found


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("after", ["data", "fit"])
def test_a_killed_run_leaves_a_valid_cache_and_no_builder(toy, after):
    process = start(toy, seconds=3)
    try:
        if after == "fit":
            assert until(lambda: toy.log.exists() and "fit" in toy.log.read_text())
        else:
            assert until(lambda: builders_of(process.pid))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert until(lambda: not builders_of(process.pid)), "a builder outlived its parent"
    for folder in toy.cache.entries():
        assert toy.cache.get(folder.name) is not None
    results = toy.build("toy-base", "toy-prune", "toy-int8", workloads=("toy-task:seconds=3",))
    assert all(isinstance(built, Built) for built in results.values())
    assert list((toy.cache.root / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_kills_at_any_moment_then_a_whole_run(toy):
    import random

    rng = random.Random(0)
    for _kill in range(10):
        process = start(toy, seconds=1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 3.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for folder in toy.cache.entries():
            assert toy.cache.get(folder.name) is not None
    results = toy.build("toy-base", "toy-prune", "toy-int8", workloads=("toy-task:seconds=1",))
    assert all(isinstance(built, Built) for built in results.values())
    toy.ran()
    toy.build("toy-base", "toy-prune", "toy-int8", workloads=("toy-task:seconds=1",))
    assert toy.ran() == []


def test_ctrl_c_ends_the_builders_and_keeps_what_is_finished(toy):
    main = threading.main_thread().ident

    def interrupt():
        until(lambda: toy.log.exists() and "fit" in toy.log.read_text())
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted) as caught:
        toy.build("toy-base", workloads=("toy-task:seconds=30",))
    thread.join()
    assert caught.value.hint == "run the same command again"
    assert not builders_of(os.getpid())
    assert toy.cache.show().entries == 1  # the data
    assert list((toy.cache.root / "tmp").iterdir()) == []


def test_a_waiting_measurer_stops_new_steps_and_the_running_ones_end(toy):
    """The slot of the second step blocks until the first has ended, as behind a measurer that waits for it."""
    turnstile = threading.Lock()
    open_steps = threading.Semaphore(1)
    order = []

    @contextlib.contextmanager
    def slot():
        with turnstile:
            open_steps.acquire()
        order.append("in")
        yield
        order.append("out")
        open_steps.release()

    results = toy.build("toy-base", "toy-prune", slot=slot)
    assert all(isinstance(built, Built) for built in results.values())
    assert order == ["in", "out"] * (len(order) // 2)
