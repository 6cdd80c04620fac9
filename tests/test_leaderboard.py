from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from records import (
    artifact,
    board_records,
    cell,
    failed,
    info,
    interval,
    latency,
    launch_set,
    lineage,
    quality,
    record,
    rmse,
    run_of,
)

from harness.errors import PlanError
from harness.leaderboard import COLUMNS, columns_markdown, mark_pareto, sort_rows, table, where_time_went
from harness.leaderboard.pareto import undominated
from harness.leaderboard.sections import sections
from harness.store import Problem
from harness.types import Coverage, Interval, Options


def only(frame, **values):
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_one_row_for_each_cell_and_the_documented_columns():
    frame = table(run_of(board_records()))
    assert len(frame) == len(board_records())
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert {str(frame[column.name].dtype) for column in COLUMNS} == {"object", "float64", "Int64", "boolean"}


def test_an_empty_run_gives_an_empty_table():
    frame = table(run_of(()))
    assert len(frame) == 0
    assert list(frame.columns) == [column.name for column in COLUMNS]


def test_every_column_is_documented_once_with_a_unit_where_it_has_one():
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in COLUMNS)
    suffixes = {"_ns": "ns", "_bytes": "bytes", "_db": "dB", "_per_s": "items/s", "_s": "s"}
    for column in COLUMNS:
        ending = next((unit for suffix, unit in suffixes.items() if column.name.endswith(suffix)), None)
        assert ending is None or column.unit == ending, column
    assert columns_markdown().count("\n") == len(COLUMNS) + 2


def test_figures_of_a_row():
    row = only(table(run_of(board_records())), method="int8", target="onnxruntime")
    assert row["quality"] == pytest.approx(99.11)
    assert (row["drop"], row["drop_low"], row["drop_high"]) == pytest.approx((0.22, -0.38, 0.92))
    assert row["speedup"] == pytest.approx(2.52)
    assert row["speedup_low"] == pytest.approx(2.52 / 1.02)
    assert row["speedup_high"] == pytest.approx(2.52 / 0.98)
    assert row["p50_ns"] == pytest.approx(1.21e6)
    assert row["verdict"] == "faster"
    assert row["compression"] == pytest.approx(318_000 / 98_304)
    assert row["model_memory_bytes"] == pytest.approx(0.1 * 61.2 * 2**20, abs=1)
    assert row["flips"] == pytest.approx(1 / 450)
    assert row["top1_agreement"] == pytest.approx(449 / 450)
    assert (row["top1_agreement_low"], row["top1_agreement_high"]) == pytest.approx((0.98752, 0.99961), abs=1e-5)
    assert row["macs"] == 12_501_632
    assert row["build_s"] == pytest.approx(43.5)
    assert row["runtime"] == "onnxruntime 1.0"


def test_a_metric_where_lower_is_better_keeps_its_direction():
    anchor = record(workload="diabetes-mlp", quality=rmse(54.1))
    worse = record("int8", workload="diabetes-mlp", quality=rmse(55.0, 0.9))
    better = record("fp16", workload="diabetes-mlp", quality=rmse(53.9, -0.2), latency=latency(3.0, speed_up=1.0))
    frame = table(run_of((anchor, worse, better)), sort="quality")
    assert list(frame["method"]) == ["fp16", "baseline", "int8"]
    assert next(iter(frame["drop"])) == pytest.approx(-0.2)
    assert list(frame["drop"])[2] == pytest.approx(0.9)
    assert (frame["drop_low"][2], frame["drop_high"][2]) == pytest.approx((0.5, 1.4))


@pytest.mark.parametrize("high", [0.99, 1.0, 1.0000001, 1.02])
def test_a_metric_in_percent_is_always_a_share(high):
    made = replace(quality(0.9), value=Interval(0.9, 0.4, high), difference=Interval(-0.5, -1.0, 1.25))
    row = only(table(run_of((record("int8", quality=made),))), method="int8")
    assert list(row[["quality", "quality_low", "quality_high"]]) == pytest.approx([90.0, 40.0, 100 * high])
    assert list(row[["drop", "drop_low", "drop_high"]]) == pytest.approx([50.0, -125.0, 100.0])


def test_a_percentage_without_labels_has_no_value_and_other_units_are_never_scaled():
    bare = replace(quality(0.9, 0.01), value=None)
    frame = table(run_of((record("int8", quality=bare), record("fp16", quality=rmse(0.9, 0.5)))))
    assert math.isnan(only(frame, method="int8")["quality"])
    assert only(frame, method="int8")["drop"] == pytest.approx(1.0)
    assert only(frame, method="fp16")["quality"] == pytest.approx(0.9)
    assert only(frame, method="fp16")["drop_high"] == pytest.approx(1.0)


def test_rows_are_sorted_by_target_and_speed_up_then_unranked_then_lost():
    frame = table(run_of(board_records()))
    okay = frame[frame["ranked"]]
    assert list(okay["target"]) == ["onnxruntime"] * 5 + ["openvino"] * 3
    for _target, rows in okay.groupby("target"):
        assert list(rows["speedup"]) == sorted(rows["speedup"], reverse=True)
    assert list(okay["method"][5:]) == ["int8", "baseline", "dynamic-int8"]  # the anchor stands where ratio 1 does
    assert list(frame["ranked"]) == sorted(frame["ranked"], reverse=True)
    assert list(frame["status"][-3:]) != ["ok"] * 3
    assert set(frame["status"][: len(frame) - 3]) == {"ok"}


def test_rows_that_are_not_ok_keep_their_reason_and_are_not_ranked():
    row = only(table(run_of(board_records())), target="tensorrt")
    assert row["status"] == "unavailable"
    assert row["reason"].startswith("no NVIDIA driver")
    assert not row["ranked"]
    assert math.isnan(row["speedup"])


def test_estimates_and_the_null_target_are_never_ranked():
    frame = table(run_of((*board_records(), record("fp16", kind="simulated", latency=latency(0.1, speed_up=30)))))
    assert not only(frame, kind="simulated")["ranked"]
    assert not only(frame, overhead=True)["ranked"]
    assert next(iter(frame["method"][frame["ranked"]])) != "fp16"


def test_a_target_that_runs_no_model_is_known_by_its_flag_and_not_by_its_name():
    idle = record("baseline", "idle", artifact=replace(artifact(), flags=("runs_no_model",)))
    failing = failed("baseline", "rests", "failed", "latency", "rests", "no", flags=("runs_no_model",))
    frame = table(run_of((record(), idle, failing, record("baseline", "null"))))
    assert list(frame["target"][frame["overhead"]]) == ["idle", "rests"]
    assert not only(frame, target="idle")["ranked"]
    assert only(frame, target="null")["ranked"]  # of somebody else, and it runs models


def test_ratios_to_unlike_anchors_are_never_in_one_order():
    made = [("a", 4.0, "float32"), ("b", 3.0, "float16"), ("c", 2.0, "float32"), ("d", 1.5, "float16")]
    records = tuple(
        record(method, latency=latency(1.0, speed_up=speed), anchor_precision=name) for method, speed, name in made
    )
    frame = table(run_of((*records, record("e", "aa", latency=latency(9.0, speed_up=1.1)))))
    assert list(frame["method"]) == ["e", "b", "d", "a", "c"]


@pytest.mark.parametrize(
    ("sort", "first"), [("size", "channel-pruning:ratio=0.5+int8"), ("stored", "binarization"), ("quality", "baseline")]
)
def test_other_orders(sort, first):
    assert table(run_of(board_records()), sort=sort)["method"][0] == first


def test_an_unknown_order_suggests_one():
    with pytest.raises(PlanError) as caught:
        sort_rows(table(run_of(board_records())), "qualty")
    assert "'quality'" in caught.value.hint


def test_the_newest_run_of_a_host_counts():
    old = run_of((record("int8", finished_utc="2026-01-01T00:00:00+00:00", flags=("old",)),))
    new = run_of((record("int8", finished_utc="2026-02-01T00:00:00+00:00", flags=("new",)),))
    for runs in ((old, new), (new, old)):
        assert list(table(runs)["flags"]) == ["new"]
    elsewhere = run_of((record("int8", host_id="1" * 64, flags=("far",)),), host_id="1" * 64, host_name="far")
    assert sorted(table((old, elsewhere))["flags"]) == ["far", "old"]


def test_options_are_ranked_apart():
    several = tuple(record("int8", threads=threads, batch=batch) for threads in (2, 1) for batch in (8, 1))
    frame = table(run_of(several))
    assert list(zip(frame["threads"], frame["batch"], strict=True)) == [(1, 1), (1, 8), (2, 1), (2, 8)]
    assert several[0].cell.options == Options(threads=2, batch=8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"method": "magnitude-pruning", "flags": ("stored_sparse_executed_dense",)},
            "no gain: onnxruntime has no sparse kernel",
        ),
        (
            {"method": "magnitude-pruning", "lineage": lineage(nonzero=30_000)},
            "no gain: onnxruntime has no sparse kernel",
        ),
        (
            {"method": "binarization", "flags": ("stored_1bit_executed_float32",)},
            "no gain: stored as 1-bit, runs as float32",
        ),
        ({"method": "int8", "coverage": Coverage("int8", 0.2, 0.11, None)}, "only 11 % of MACs ran in int8"),
        ({"method": "int8"}, "no gain in speed"),
    ],
)
def test_a_method_that_brings_nothing_says_so(changes, says):
    method = changes.pop("method")
    made = record(method, **{"latency": latency(3.04, speed_up=1.003, verdict="equivalent"), **changes})
    row = only(table(run_of((record(), made))), method=method)
    assert says in row["note"]


def test_unresolved_is_never_called_the_same():
    made = record("int8", latency=latency(3.04, speed_up=1.003, verdict="unresolved"))
    row = only(table(run_of((record(), made))), method="int8")
    assert row["verdict"] == "unresolved"
    assert row["note"] == "speed-up not resolved"


def test_a_faster_cell_and_an_anchor_need_no_words():
    assert list(table(run_of((record(), record("int8"))))["note"]) == ["", ""]


@pytest.mark.parametrize(
    ("wanted", "share", "flagged"), [("int8", 0.49, True), ("int8", 0.5, False), ("float16", 0.1, False)]
)
def test_compressed_on_paper_is_flagged(wanted, share, flagged):
    frame = table(run_of((record("int8", coverage=Coverage(wanted, share, share, None)),)))
    assert ("not_actually_quantised" in frame["flags"][0]) == flagged


def test_a_noisy_host_is_said_with_figures():
    sets = [launch_set("g", index, {"a": 3.0, "b": 1.0}, anchor="a") for index in range(4)]
    quiet = table(run_of((record(),), tuple(sets))).attrs["notes"]
    assert not any("noisy" in text or not text for text in quiet)
    bad = {"verdict": "noisy", "canary_before_gflops": 51.3, "steal": 0.041, "cpu_wall": 0.71}
    sets[1] = launch_set("g", 1, {"a": 3.0, "b": 1.0}, anchor="a", **bad)
    (text,) = [text for text in table(run_of((record(),), tuple(sets))).attrs["notes"] if "noisy" in text]
    for figure in (
        "25 % of 8 launches noisy",
        "canary 51.3 to 101 GFLOP/s",
        "steal up to 4.1 %",
        "cpu/wall down to 0.71",
    ):
        assert figure in text
    sets[1] = launch_set("g", 1, {"a": 3.0}, anchor="a", **{**bad, "steal": None})
    sets = sets[1:2]
    assert "steal not available" in table(run_of((record(),), tuple(sets))).attrs["notes"][0]


def test_problems_of_a_run_are_on_the_board():
    run = replace(run_of(board_records()), problems=(Problem("cells/x.json", "has schema 2"),))
    assert table(run).attrs["problems"] == ["run/cells/x.json: has schema 2"]


def linked_run(**changes):
    names = {target: cell("baseline", target).cell_id for target in ("openvino", "onnxruntime")}
    fast = cell("int8", "openvino").cell_id
    links = tuple(
        launch_set(
            "link", index, {names["onnxruntime"]: 3.0, names["openvino"]: 2.0}, anchor=None, purpose="link", rounds=8
        )
        for index in range(6)
    )
    variants = tuple(
        launch_set("v", index, {names["openvino"]: 2.0, fast: 0.5}, anchor=names["openvino"], rounds=8)
        for index in range(6)
    )
    own = tuple(f"v-{index:05d}" for index in range(6))
    records = (
        record(),
        record(target="openvino", **changes),
        record("int8", "openvino", sets=own),
        record("int8", "tflite"),
    )
    return run_of(records, (*links, *variants))


def test_cross_target_speed_ups_go_through_the_link_sets():
    frame = table(linked_run())
    assert set(frame["cross_reference"].dropna()) == {"onnxruntime"}
    assert only(frame, method="baseline", target="onnxruntime")["cross_speedup"] == 1.0
    anchor = only(frame, method="baseline", target="openvino")
    assert anchor["cross_speedup"] == pytest.approx(1.5, rel=0.02)
    fast = only(frame, method="int8", target="openvino")
    assert fast["cross_speedup"] == pytest.approx(6.0, rel=0.02)
    assert fast["cross_speedup_low"] < fast["cross_speedup"] < fast["cross_speedup_high"]
    assert math.isnan(only(frame, target="tflite")["cross_speedup"])
    assert any("relative to the anchor of onnxruntime" in text for text in frame.attrs["notes"])


def test_anchors_of_another_precision_are_not_compared():
    frame = table(linked_run(anchor_precision="float16"))
    assert frame["cross_speedup"].isna().all()
    assert any("different precisions (float16, float32)" in text for text in frame.attrs["notes"])


def two_runs(profile="quick"):
    """Return two runs of one host: in the first, link sets compare with onnxruntime; in the second, with openvino."""
    first = linked_run()
    names = {target: cell("baseline", target, threads=1, batch=1).cell_id for target in ("openvino", "tflite")}
    links = tuple(
        launch_set("l", index, {names["openvino"]: 2.0, names["tflite"]: 0.2}, anchor=None, purpose="link", rounds=8)
        for index in range(6)
    )
    later = {"finished_utc": "2026-12-01T00:00:00+00:00", "profile": profile}
    second = run_of(
        (record(target="openvino", **later), record(target="tflite", **later)), links, run_id="second", profile=profile
    )
    return replace(first, records=tuple(item for item in first.records if item.cell.target.name != "tflite")), second


def test_runs_with_unlike_references_are_compared_in_lines_of_their_own():
    frame = table(two_runs(), sort="cross")
    (section,) = sections(frame)
    older, newer = section.crossed
    assert older.startswith("across targets, against onnxruntime's anchor in run 2026")
    assert "int8 on openvino 6." in older
    assert "tflite" not in older
    assert newer.startswith("across targets, against openvino's anchor in run second: baseline on tflite")
    known = frame[frame["cross_reference"].notna()]
    assert list(known["cross_reference"]) == ["onnxruntime"] * 2 + ["openvino"] * 2
    (text,) = [text for text in frame.attrs["notes"] if "cross-target" in text]
    assert "onnxruntime in run 2026" in text
    assert "openvino in run second" in text


def test_a_single_run_has_one_line_across_targets():
    (section,) = sections(table(linked_run()))
    (line,) = section.crossed
    assert line.startswith("across targets, against onnxruntime's anchor: int8 on openvino 6.")


def test_a_title_names_every_profile_of_its_rows():
    (section,) = sections(table(two_runs("publish")))
    assert section.title.endswith("quick and publish profiles")
    (section,) = sections(table(two_runs()))
    assert section.title.endswith("quick profile")


def test_the_pareto_front_by_brute_force():
    rng = np.random.default_rng(1)
    for _ in range(20):
        costs = rng.integers(0, 4, (12, 3)).astype(float)
        expected = [not any(all(other <= row) and any(other < row) for other in costs) for row in costs]
        assert list(undominated(costs)) == expected


def test_the_pareto_front_is_found_within_a_target_and_knows_directions():
    a = record("a", latency=latency(2.0, speed_up=1.5), artifact=artifact(200))
    b = record("b", latency=latency(3.0, speed_up=1.0), artifact=artifact(300))
    c = record("c", "openvino", latency=latency(9.0, speed_up=1.0), artifact=artifact(900))
    frame = mark_pareto(table(run_of((a, b, c, failed("d", "tflite", "failed", "lower", "tflite", "no")))))
    assert dict(zip(frame["method"], frame["pareto"], strict=True)) == {"a": True, "b": False, "c": True, "d": pd.NA}
    worse = [replace(item, quality=rmse(value)) for item, value in ((a, 54.0), (b, 50.0))]
    assert list(mark_pareto(table(run_of(tuple(worse))))["pareto"]) == [True, True]
    assert frame.attrs == table(run_of((a, b, c))).attrs


def test_where_the_time_went_counts_a_step_that_pipelines_share_once():
    """Pruning is run once for two cells, of which one goes on; the seconds of its stage hold both its steps."""
    fit = lineage()
    prune = replace(fit[0], stage="compress", name="prune", seconds=8.0)
    quantize = replace(fit[0], stage="compress", name="qat", seconds=5.0)
    cells = (
        record("prune", lineage=(*fit, prune), seconds={"fit": 41.5, "compress": 8.0, "lower": 1.0}),
        record("prune+qat", lineage=(*fit, prune, quantize), seconds={"fit": 41.5, "compress": 13.0, "lower": 2.0}),
    )
    frame = where_time_went(run_of(cells))
    assert dict(zip(frame["stage"], frame["seconds"], strict=True)) == {"fit": 41.5, "compress": 13.0, "lower": 3.0}


def test_where_the_time_went_counts_a_shared_step_once():
    shared = tuple(
        record(method, seconds={"fit": 41.5, "lower": lower, "memory": 2.0})
        for method, lower in (("a", 1.0), ("b", 3.0))
    )
    sets = (launch_set("g", 0, {"a": 1.0}, anchor=None), launch_set("link", 0, {"a": 1.0}, anchor=None, purpose="link"))
    frame = where_time_went(run_of(shared, sets))
    assert dict(zip(frame["stage"], frame["seconds"], strict=True)) == {
        "fit": 41.5,
        "lower": 4.0,
        "memory": 4.0,
        "latency": 5.0,
    }
    assert frame["share"].sum() == pytest.approx(1.0)
    assert len(where_time_went(run_of(()))) == 0


def test_no_interval_stays_no_interval():
    bare = replace(latency(3.0, speed_up=2.0), ratio=Interval(0.5, None, None), p50_ns=Interval(3e6, None, None))
    row = table(run_of((record("int8", latency=bare),))).iloc[0]
    assert row["speedup"] == 2.0
    assert math.isnan(row["speedup_low"])
    assert math.isnan(row["p50_high_ns"])


def test_a_run_without_run_json_still_makes_a_board():
    run = replace(run_of(board_records()), info=None)
    assert set(table(run)["run"]) == {"run"}
    assert info().run_id in set(table(run_of(board_records()))["run"])


def test_attrs_are_plain_data():
    assert json.loads(json.dumps(table(run_of(board_records())).attrs))
    assert interval(1.0, 0.1).low == pytest.approx(0.9)
