from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from harness.measure import slots

HOLD = """
import sys, time
from harness.measure import slots
with getattr(slots, sys.argv[1])(on_wait=lambda text: print(text, flush=True)):
    print("in", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


class Run:
    def __init__(self, kind):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def leave(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def running(*kinds):
    runs = [Run(kind) for kind in kinds]
    try:
        yield runs
    finally:
        for run in runs:
            run.process.kill()
            run.process.communicate()


def test_two_measurers_queue_and_the_second_says_for_whom():
    with running("measuring") as (first,):
        assert first.line() == "in"
        with running("measuring") as (second,):
            assert second.line() == f"waiting for another run (pid {first.process.pid})"
            first.leave()
            assert first.line() == "out"
            assert second.line() == "in"


def test_builds_share_the_slot_and_keep_a_measurer_out():
    with running("building", "building") as (one, two):
        assert (one.line(), two.line()) == ("in", "in")
        with running("measuring") as (measurer,):
            assert "waiting for another run" in measurer.line()
            one.leave()
            assert one.line() == "out"
            two.leave()
            assert measurer.line() == "in"


def test_a_waiting_measurer_goes_before_a_later_build():
    with running("building") as (early,):
        assert early.line() == "in"
        with running("measuring") as (measurer,):
            assert "waiting" in measurer.line()
            with running("building") as (late,):
                assert f"pid {measurer.process.pid}" in late.line()
                early.leave()
                assert measurer.line() == "in"
                measurer.leave()
                assert measurer.line() == "out"
                after = late.line()
                while after.startswith("waiting"):  # said once for each process that it waits for
                    after = late.line()
                assert after == "in"


def test_a_killed_holder_frees_the_slot():
    with running("measuring") as (first,):
        assert first.line() == "in"
        first.process.kill()
        first.process.wait()
        start = time.monotonic()
        with slots.measuring():
            pass
        assert time.monotonic() - start < 5


def test_without_a_runtime_folder_the_lock_is_the_users_own(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert slots.folder().name.startswith("harness-")
    with slots.building():
        pass
