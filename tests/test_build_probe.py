from __future__ import annotations

import sys
import time

import build_support
import pytest

from harness.build import probe_targets
from harness.plan import Resolved
from harness.types import Step


@pytest.fixture
def toy(tmp_path, monkeypatch):
    yield build_support.install(tmp_path, monkeypatch)
    build_support.forget()


def target(how=""):
    return Resolved(Step("toy-runtime", {"how": how}), "toy-runtime", {"how": how}, "toy")


def test_each_probe_has_a_process_and_a_reason_of_its_own(toy):
    targets = {how or "good": target(how) for how in ("", "segv", "raise", "absent")}
    states = probe_targets(targets, timeout_s=60)
    good = states["good"]
    assert good.availability.available
    assert good.capabilities.channel_multiple == 8
    assert good.capabilities.isa == ("toy512",)
    assert "SIGSEGV" in states["segv"].availability.reason
    assert "RuntimeError: no driver" in states["raise"].availability.reason
    absent = states["absent"].availability
    assert (absent.reason, absent.hint) == ("there is no toy chip", "buy one")
    assert [state.capabilities for name, state in states.items() if name != "good"] == [None] * 3


def test_a_probe_that_hangs_is_ended(toy):
    started = time.monotonic()
    state = probe_targets({"slow": target("hang")}, timeout_s=2.5)["slow"]
    assert not state.availability.available
    assert "no answer within 2.5 s" in state.availability.reason
    assert time.monotonic() - started < 20


def test_an_interpreter_without_harness_says_so(toy, tmp_path):
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    fake.chmod(0o755)
    state = probe_targets({"toy": target()}, {"toy-runtime": str(fake)}, timeout_s=30)["toy"]
    assert "No module named 'harness'" in state.availability.reason


def test_an_interpreter_that_is_not_there_says_so(toy):
    state = probe_targets({"toy": target()}, {"toy-runtime": "/nonexistent/python"}, timeout_s=30)["toy"]
    assert "/nonexistent/python" in state.availability.reason


def test_an_interpreter_with_another_harness_says_both_versions(toy, monkeypatch):
    monkeypatch.setattr("harness.__version__", "99.0")
    state = probe_targets({"toy": target()}, timeout_s=30)["toy"]
    assert "here is 99.0" in state.availability.reason


def test_a_target_of_an_unknown_plugin_is_unavailable(toy):
    unknown = Resolved(Step("ghost"), "ghost", {}, "no-such-plugin")
    state = probe_targets({"ghost": unknown}, timeout_s=30)["ghost"]
    assert "ghost" in state.availability.reason
