"""``harness placements`` on the run that is in the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import call

RUN = str(Path(__file__).parent.parent / "results" / "reference")
GOLDEN = str(Path(__file__).parents[1] / "harness" / "testing" / "golden_tree")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert call(["placements", *words]) == 0
    return capsys.readouterr().out


def test_cells_are_listed_with_their_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, RUN, "--json"))
    shown = printed(capsys, RUN)
    assert len(rows) > 10
    assert all(row["cell"][:8] in shown for row in rows)
    assert {row["coverage"]["wanted"] for row in rows} >= {"float32", "int8"}


def test_a_cell_is_shown_row_by_row_and_its_shares_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, RUN, "int8@openvino", "--json"))
    rows = found["placements"]
    total = sum(row["macs"] or 0 for row in rows)
    integer = sum(row["macs"] or 0 for row in rows if row["precision"] == "int8")
    assert found["coverage"]["by_macs"] == pytest.approx(integer / total)
    text = printed(capsys, RUN, found["cell"][:8])
    assert all(row["op"] in text for row in rows)
    assert f"{found['coverage']['by_macs']:.1%} of MACs" in text


def test_a_cell_names_the_shared_objects_of_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, GOLDEN, "fe99ca4c", "--json"))["loaded"]
    assert [item["path"] for item in found["objects"]] == [
        "numpy.libs/libopenblas.so", "onnxruntime/capi/onnxruntime_pybind11_state.so",
    ]  # fmt: skip
    assert found["objects"][0]["build_id"] is None
    assert found["objects"][0]["reason"] == "its linker wrote no build-id"
    assert len(found["objects"][1]["build_id"]) == 40
    assert "2 shared objects" in printed(capsys, GOLDEN, "fe99ca4c")


def test_rows_of_one_operator_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, RUN, "int8@openvino", "--json"))["placements"]
    total = sum(row["macs"] or 0 for row in rows if row["op"] == "Convolution")
    assert f"{total:,}" in printed(capsys, RUN, "int8@openvino", "--by-op")


@pytest.mark.parametrize(
    ("words", "why"), [((RUN, "nothing"), "no cell with placements matches 'nothing'"), ((RUN, "int8"), "cells match")]
)
def test_a_cell_that_is_not_there_or_not_one_is_refused(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["placements", *words]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "give one of" in said
