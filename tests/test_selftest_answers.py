"""The self-test's planted wrong answers: each is caught, and the lines can fail."""

from __future__ import annotations

import pytest

from harness.plugins import load_registry
from harness.selftest import answers
from harness.selftest.lab import Lab

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(load_registry(), tmp_path_factory.mktemp("answers"), full=False, calm_s=0.0, note=lambda _text: None)


@pytest.fixture(scope="module")
def found(lab):
    (planted,) = answers._built(lab, ("onnxruntime",))
    return planted


def test_the_right_network_passes_and_all_ten_wrong_answers_are_refused(lab, found, monkeypatch):
    monkeypatch.setattr(answers, "_built", lambda _lab, _targets: iter([found]))
    lines = list(answers.planted(lab, ("onnxruntime",)))
    assert len(lines) == 11
    assert [line.reason for line in lines if line.verdict != "pass"] == []
    assert lines[0].figures["sqnr_db"] > 100
    assert all("wrong answers: output 'shares'" in line.reason for line in lines[1:])


def test_a_wrong_answer_that_passes_fails_its_line(found):
    right = found.check(found.member(), "right")
    assert answers._line(found, "swapped inputs", right).verdict == "fail"
    assert answers._line(found, "swapped inputs", "it broke").verdict == "fail"


def test_a_right_network_that_is_refused_fails_its_line(found, monkeypatch):
    wrong = found.check(found.member("epsilon"), "wrong")
    monkeypatch.setattr(type(found), "check", lambda *_args: wrong)
    assert answers._right(found).verdict == "fail"
