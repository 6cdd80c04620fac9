"""Real networks from ordinary packages, and networks in users' shapes, through the whole way: ``-m realfiles``."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.real_files import catalogue, fetch, inputs
from benchmarks.real_files.running import CASES, Case, CellRow, Row, bench
from benchmarks.real_files.table import page

RAW = re.compile(r"Traceback|\.cc:\d|\.cpp:\d|\.cc\(\d|ONNXRuntimeError|Check '.*' failed|\x1b\[|\n")
METHODS = ("baseline", "int8", "weight-only")


def test_the_catalogue_names_each_file_once() -> None:
    names = [file.name for file in catalogue.FILES]
    assert len(set(names)) == len(names)
    assert len({(file.package, file.path) for file in catalogue.FILES}) == len(names)
    assert all(re.fullmatch(r"(npm:@?[\w./-]+@[\d.]+)|([\w.-]+==[\w.]+)", file.package) for file in catalogue.FILES)


@pytest.mark.parametrize("file", [file for file in catalogue.FILES if file.quick], ids=lambda file: file.name)
def test_items_are_drawn_anew_alike_and_differ_from_each_other(file: catalogue.File) -> None:
    first, again = file.data(16), file.data(16)
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.isfinite(value).all()
    items = max(first.values(), key=lambda value: value.size)
    assert len({item.tobytes() for item in items}) == 16


def test_pictures_and_sounds_are_in_their_range() -> None:
    pictures, sounds = inputs.pictures(0, 2, 16, 24), inputs.speech(0, 2, 1600)
    assert (pictures.shape, sounds.shape) == ((2, 16, 24, 3), (2, 1600))
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert 0.01 < float(np.abs(sounds).max()) <= 1


def _cell(method: str, **changes: object) -> CellRow:
    return CellRow(**{"target": "onnxruntime", "method": method, "status": "ok", **changes})


def test_the_page_shows_figures_and_refusals() -> None:
    cells = (
        _cell("baseline", db=118.2, against="onnx"),
        _cell("int8", db=41.4, against="onnx", speedup=1.4, noise="noisy", flags=("output_slice_lost",)),
        _cell("weight-only", status="not-applicable", reason="nothing to | quantize"),
        _cell("fp16", status="failed", reason="wrong answers"),
        _cell("baseline", target="tflite", status="not-applicable", reason="no installed exporter leads there"),
    )
    rows = [
        Row("a net", "file", "words", "p==1", 2**20, 1.0, False, "", cells, {"torch": "2"}),
        Row("refused", "file", "words", "p==1", 10, 1.0, False, "two inputs disagree"),
    ]
    text = page(rows)
    line = next(line for line in text.splitlines() if line.startswith("| **a net**"))
    assert line.split(" | ")[1:] == ["onnxruntime", "118 dB", "41 dB 1.40\N{MULTIPLICATION SIGN}! s", "", "no [1]",
                                     "**failed** [2] |"]  # fmt: skip
    assert "1. nothing to / quantize" in text
    assert "3. two inputs disagree" in text
    assert "| tflite |" not in text
    assert "| ok | 2 |" in text


def judge(row: Row) -> list[str]:
    """Return what is wrong with a row: a cell is compared with the framework's answers, or refused in a sentence."""
    told = [f"{row.name} was refused: {row.refused}"] if row.refused else []
    for cell in row.cells:
        where = f"{row.name}, {cell.method} on {cell.target}"
        if RAW.search(cell.reason):
            told.append(f"{where}: raw text: {cell.reason}")
        if cell.status not in {"ok", "not-applicable", "unavailable"}:
            told.append(f"{where}: {cell.status}: {cell.reason}")
        if cell.wrong:
            told.append(f"{where}: {cell.wrong}")
        if cell.status == "ok" and (cell.db is None or cell.against == "its anchor"):
            told.append(f"{where}: not compared with the framework's answers")
    if not any(cell.status == "ok" and cell.method == "baseline" for cell in row.cells) and not row.refused:
        told.append(f"{row.name}: no target runs it")
    return told


def test_what_is_wrong_with_a_row_is_found() -> None:
    def row(*cells: CellRow, refused: str = "") -> Row:
        return Row("net", "file", "", "", 1, 1.0, True, refused, cells)

    sound = (_cell("baseline", db=120.0, against="onnx"), _cell("int8", db=40.0, against="onnx"))
    assert judge(row(*sound)) == []
    assert judge(row(refused="two inputs disagree"))
    assert judge(row(sound[0], _cell("int8", db=40.0, against="its anchor")))
    assert judge(row(sound[0], _cell("int8", db=40.0, against="onnx", wrong="output 'y', item 3")))
    assert judge(row(sound[0], _cell("int8", status="failed", reason="it cannot")))
    assert judge(row(sound[0], _cell("int8", status="not-applicable", reason="at core.cpp:117")))
    assert judge(row(_cell("baseline")))
    assert judge(row(_cell("baseline", status="not-applicable", reason="no kernel")))


def _marked(case: Case) -> object:
    marks = () if case.quick else (pytest.mark.slow,)
    return pytest.param(case, id=f"{case.name} {case.way}", marks=marks)


@pytest.mark.realfiles
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_a_real_network_is_right_or_refused_in_one_sentence(case: Case) -> None:
    try:
        row = bench(case, short=True, methods=METHODS)
    except fetch.NotThere as error:
        pytest.skip(str(error))
    assert judge(row) == []
