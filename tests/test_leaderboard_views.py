# ruff: noqa: RUF001  the signs of the board
from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
from records import board_records, failed, latency, memory, quality, record, rmse, run_of
from rich.console import Console

from harness.errors import MissingDependency, PlanError
from harness.leaderboard import COLUMNS, FORMATS, escape, mark_pareto, render, table, terminal
from harness.leaderboard.digits import decimals, fixed, plain, ranged
from harness.types import Interval

HOSTILE = [
    "[bold red]x[/]",
    "a|b",
    "a\nb",
    "`c`",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "+1+cmd",
    "@SUM(1)",
    "-2+3",
    "\x1b[31mred",
    "abc\u202etxt.exe",
    "zero\u200bwidth",
    "a\u2028b",
    "*b* _i_ ~~s~~",
    "![i](http://x)",
    "\x00",
    "é漢字😀",
    "](http://evil)",
    "www.evil.com",
    "#1",
    "\x9b31m",
    "${x}",
    "a\\b",
    ":smile:",
]


def drawn(frame, width=100):
    console = Console(record=True, width=width, file=io.StringIO())
    terminal(frame, console)
    return console.export_text()


def board():
    return table(run_of(board_records()))


@pytest.mark.parametrize("width", [100, 120, 200])
def test_the_terminal_board_shows_every_cell_within_its_width(width):
    text = drawn(mark_pareto(board()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for expected in (
        "digits-resnet8 · 1 thread · batch 1",
        "2.52× faster",
        "2.47–2.57",
        "1.186–1.234",
        "0.95×! unresolved",
        "97 %",
        "2.48?",
        "harness overhead: 12.3",
        "no gain: onnxruntime has no sparse kernel",
        "not-applicable",
        "unavailable",
        "crashed",
        "no NVIDIA driver found",
        "◆",
        "† underpowered",
        "anchor",
    ):
        assert expected in text, expected


def test_the_null_target_is_a_line_and_not_a_row():
    lines = [line for line in drawn(board()).splitlines() if line.strip().startswith("null") or "null target" in line]
    assert len(lines) == 1
    assert lines[0].startswith("harness overhead")


def test_workloads_and_options_have_boards_of_their_own():
    frame = table(run_of((record(), record(threads=2), record(workload="diabetes-mlp", quality=rmse()))))
    titles = [line for line in drawn(frame).splitlines() if "quick profile" in line and "·" in line]
    assert len(titles) == 3
    assert "RMSE" in drawn(frame)
    assert "points" in drawn(frame)


def test_a_board_without_labels_shows_agreement():
    bare = replace(quality(0.99, 0.0), value=None, difference=None, metric="fidelity", flips=None, underpowered=False)
    text = drawn(table(run_of((record("int8", quality=bare),))))
    assert "agreement" in text
    assert "99.8" in text
    assert "98.8–100.0" in text


def test_units_follow_the_figures():
    tiny = drawn(table(run_of((record(latency=latency(0.02)),))))
    assert "p50 µs" in tiny
    large = drawn(table(run_of((record(latency=latency(2500), memory=memory(3000)),))))
    assert "p50 s" in large
    assert "mem GiB" in large


def test_an_empty_board_says_so():
    assert "no cell was planned" in drawn(table(run_of(())))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_do_no_harm_in_any_format(name):
    labels = {"workload": name, "method": name, "target": name}
    records = (
        record("int8", labels=labels, flags=(name,)),
        replace(failed("fp16", "tflite", "failed", "lower", name, name), labels=labels),
    )
    frame = table(run_of(records))
    frame.attrs["notes"].append(name)
    text = drawn(frame)
    assert not any(bad in text for bad in "\x1b\x00\x9b\u202e\u200b\u2028")
    flat = "".join(text.split())
    assert "".join(escape.visible(name).split()) in flat
    markdown = render(frame, "md").decode()
    assert not any(
        bad in markdown for bad in ("\x1b", "\x00", "\x9b", "\u202e", "\u200b", "\u2028", "<script", "://", "www.")
    )
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) <= 3  # of three kinds of table
    for line in csv.reader(io.StringIO(render(frame, "csv").decode())):
        assert not any(item.startswith(("=", "+", "@")) for item in line)
    assert json.loads(render(frame, "json"))["rows"][0]["method"] == name
    assert render(frame, "json").isascii()
    assert set(pd.read_parquet(io.BytesIO(render(frame, "parquet")))["method"]) == {name}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("-x", "'-x"),
        ("@a", "'@a"),
        ("-1.5e3", "-1.5e3"),
        ("+2", "+2"),
        ("int8", "int8"),
        ("＝1", "'＝1"),
    ],
)
def test_formulas_are_disarmed_and_numbers_stay(text, shown):
    assert escape.csv(text) == shown


def test_negative_numbers_stay_numbers_in_csv():
    frame = table(run_of((record("int8", quality=quality(0.99, -0.01)),)))
    (row,) = csv.DictReader(io.StringIO(render(frame, "csv").decode()))
    assert float(row["drop"]) == pytest.approx(-1.0)


def test_json_reads_back_equal():
    frame = board()
    document = json.loads(render(frame, "json"))
    assert [column["name"] for column in document["columns"]] == list(frame.columns)
    again = pd.DataFrame(document["rows"])
    for column in COLUMNS:
        series = again[column.name].astype(column.pandas_dtype)
        expected = frame[column.name].astype("object").where(frame[column.name].notna(), None)
        assert list(series.astype("object").where(series.notna(), None)) == list(expected), column.name


def test_parquet_and_csv_read_back_equal():
    frame = board()
    parquet = pd.read_parquet(io.BytesIO(render(frame, "parquet")))
    assert list(parquet["p50_ns"].dropna()) == list(frame["p50_ns"].dropna())
    assert parquet.attrs["notes"] == frame.attrs["notes"]
    again = pd.read_csv(io.BytesIO(render(frame, "csv")))
    assert list(again["speedup"].dropna()) == list(frame["speedup"].dropna())
    assert list(again["status"]) == list(frame["status"])


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency) as caught:
        render(board(), "parquet")
    assert "compression-harness[report]" in caught.value.hint


def test_an_unknown_format_suggests_one():
    with pytest.raises(PlanError) as caught:
        render(board(), "jsn")
    assert "'json'" in caught.value.hint
    assert set(FORMATS) == {"md", "csv", "json", "parquet"}


def test_markdown_shows_the_same_rows():
    text = render(mark_pareto(board()), "md").decode()
    assert "### digits-resnet8 · 1 thread · batch 1 · quick profile" in text
    assert "| int8 | openvino ◆ | 99.1 (97.7–99.7) |" in text
    assert "| fp16 | tflite | crashed | latency, tflite | the worker was killed by SIGSEGV in launch 1 |" in text
    assert "stored\\_sparse" not in text


@pytest.mark.parametrize(
    ("point", "low", "high", "shown"),
    [
        (2.5203, 2.4101, 2.6049, ("2.52", "2.41–2.60")),
        (99.33, 98.05, 99.77, ("99.3", "98.0–99.8")),
        (3.05123, 3.0498, 3.0527, ("3.0512", "3.0498–3.0527")),
        (1234.0, 1100.0, 1400.0, ("1230", "1100–1400")),
        (0.2, -0.4, 0.8, ("0.2", "−0.4 to 0.8")),
        (0.0, 0.0, 0.0, ("0.0000", "0.0000–0.0000")),
        (3.14159, None, None, ("3.14", "")),
    ],
)
def test_digits_are_those_that_the_interval_supports(point, low, high, shown):
    assert ranged(point, low, high) == shown


@pytest.mark.parametrize(("half", "places"), [(0.045, 2), (0.85, 1), (0.0123, 3), (25.0, 0), (70.0, -1), (355.0, -2)])
def test_decimals_by_the_rule_of_the_particle_data_group(half, places):
    assert decimals(half) == places


def test_plain_numbers():
    assert [plain(value) for value in (0, 0.01234, 1.0, 123.4, 98765.0, -2.5)] == [
        "0",
        "0.0123",
        "1.00",
        "123",
        "98800",
        "−2.50",
    ]
    assert fixed(-0.001, 2) == "0.00"
    assert Interval(1, None, None).low is None
