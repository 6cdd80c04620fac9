from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import dump_config, parse_config, read_config, write_config
from harness.errors import PlanError
from harness.plan import Request

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=3).map(tuple)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
REQUESTS = st.builds(
    Request,
    workloads=TEXTS, methods=TEXTS, targets=TEXTS, profile=st.sampled_from(["quick", "standard"]), threads=TEXTS,
    batches=st.lists(st.integers(1, 512), max_size=3).map(tuple), seed=st.integers(0, 2**62),
    python=st.dictionaries(NAMES, st.just("/usr/bin/python3"), max_size=2),
    strict=st.booleans(), strict_share=st.floats(0.01, 1),
    timeout_s=st.floats(0.1, 1e6), memory_limit_bytes=st.none() | st.integers(1, 2**50),
)  # fmt: skip


@given(REQUESTS)
def test_a_request_survives_toml(request_: Request) -> None:
    assert parse_config(dump_config(request_)) == request_


def test_a_file_survives(tmp_path: Path) -> None:
    asked = Request(methods=("magnitude-pruning:ratio=0.3,0.5+int8",), python={"tflite": "/venv/bin/python"})
    write_config(tmp_path / "bench.toml", asked)
    assert read_config(tmp_path / "bench.toml") == asked


def test_what_is_left_out_has_its_default() -> None:
    assert parse_config('methods = ["int8"]') == Request(methods=("int8",))


def test_counts_of_threads_may_be_numbers() -> None:
    assert parse_config('threads = [1, "all"]').threads == ("1", "all")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("method = []", "unknown key 'method'", "did you mean 'methods'?"),
        ("methods = [", "not valid TOML", None),
        ("batches = 8", "wrong type", None),
        ("threads = [true]", "wrong type", None),
        ('seed = "x"', "$.seed", None),
    ],
)
def test_a_bad_file_is_refused_in_words(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(PlanError) as caught:
        parse_config(text)
    assert message in caught.value.message
    assert caught.value.hint == hint


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
