from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from records import board_records, latency, launch_set, quality, record, rmse, run_of
from scipy import stats as scipy_stats

from harness.cli.main import call
from harness.errors import PlanError
from harness.leaderboard import geometric_mean, overall, parse_gate, render, render_overall, table, where
from harness.leaderboard.gates import retained, standard_passes
from harness.leaderboard.sections import sections
from harness.leaderboard.why import last_level_cache_bytes, why_slow
from harness.types import Coverage, Placement, StepRecord


def measured_run(speeds, sets=6, target="onnxruntime", workload="digits-resnet8", verdicts=None, **changes):
    """A run whose rows have raw sets: method -> milliseconds."""
    made = [record(method, target, workload) for method in speeds]
    anchor = made[0].cell_id
    members = {item.cell_id: ms for item, ms in zip(made, speeds.values(), strict=True)}
    raw = tuple(launch_set("aa" * 8, number, members, anchor=anchor) for number in range(sets))
    names = tuple(f"{item.group}-{item.index:05d}" for item in raw)
    made = [replace(item, sets=names, **(changes.get(item.labels["method"], {}))) for item in made]
    return run_of(tuple(made), raw)


SPEEDS = {"baseline": 3.0, "int8": 1.0, "fp16": 1.001, "binarization": 3.001, "distillation": 0.5}


def ranks(frame, prefix="rank"):
    best, worst = f"{prefix}_best", f"{prefix}_worst"
    return {row["method"]: (row[best], row[worst]) for row in frame.to_dict("records")}


def test_ties_are_shown_as_ties_and_clear_orders_as_orders():
    frame = table(measured_run(SPEEDS))
    assert ranks(frame) == {
        "distillation": (1, 1),
        "int8": (2, 3),
        "fp16": (2, 3),
        "baseline": (4, 5),
        "binarization": (4, 5),
    }
    assert set(frame["rank_of"]) == {5}
    (section,) = sections(frame)
    assert {row.method: row.rank for row in section.rows}["int8"] == "2–3"  # noqa: RUF001


def test_five_sets_rank_nothing_and_no_sets_give_no_rank():
    assert set(ranks(table(measured_run(SPEEDS, sets=5))).values()) == {(1, 5)}
    frame = table(run_of(board_records()))
    assert frame["rank_best"].isna().all()


def _with_fast_iterations(launch):
    return replace(launch, batches=tuple(replace(b, ns=(int(0.1 * b.ns[0]), *b.ns[1:])) for b in launch.batches))


def test_a_noisy_cell_needs_both_estimators():
    """Medians say faster, the p10 of the batches say slower: the order is not certain."""
    run = measured_run({"baseline": 3.0, "int8": 2.7})
    spread = {}
    for name, item in run.sets.items():
        launches = tuple(_with_fast_iterations(made) if made.cell_id == item.anchor else made for made in item.launches)
        spread[name] = replace(item, launches=launches)
    quiet = replace(run, sets=spread)
    assert ranks(table(quiet)) == {"int8": (1, 1), "baseline": (2, 2)}
    noisy = replace(quiet, records=tuple(replace(r, latency=replace(r.latency, noise="noisy")) for r in quiet.records))
    assert ranks(table(noisy)) == {"int8": (1, 2), "baseline": (1, 2)}


def test_ranks_across_targets_go_through_the_link_sets():
    one, two = measured_run(SPEEDS), measured_run(SPEEDS, target="openvino")
    anchors = {one.records[0].cell_id: 3.0, two.records[0].cell_id: 1.5}
    moved = {name: replace(item, group="bb" * 8) for name, item in two.sets.items()}
    links = [launch_set("cc" * 8, n, anchors, anchor=one.records[0].cell_id, purpose="link") for n in range(6)]
    second = tuple(replace(r, sets=tuple(name.replace("aa" * 8, "bb" * 8) for name in r.sets)) for r in two.records)
    run = replace(
        one,
        records=one.records + second,
        sets={
            **one.sets,
            **{name.replace("aa" * 8, "bb" * 8): item for name, item in moved.items()},
            **{f"{item.group}-{item.index:05d}": item for item in links},
        },
    )
    frame = table(run)
    best = frame[frame["cross_rank_best"] == 1]
    assert set(zip(best["method"], best["target"], strict=True)) == {("distillation", "openvino")}
    assert set(frame["cross_rank_of"]) == {10}
    assert set(frame["rank_of"]) == {5}
    slowest = frame[(frame["target"] == "onnxruntime") & (frame["method"] == "baseline")].iloc[0]
    assert slowest["cross_rank_worst"] == 10


def test_kinds_are_never_in_one_ranking_or_one_section():
    run = measured_run(SPEEDS, fp16={"kind": "simulated"})
    frame = table(run)
    assert ranks(frame)["int8"] == (2, 2)
    assert set(frame["rank_of"].dropna()) == {4}
    titles = [section.title for section in sections(frame)]
    assert len(titles) == 2
    assert titles[1].endswith("simulated")
    assert len(overall(frame)) == 4


# gates


@pytest.mark.parametrize(
    ("text", "row", "passes"),
    [
        ("99", {"retained": 99.0}, True),
        ("99%", {"retained": 98.9999}, False),
        (">=99.9 %", {"retained": 99.91}, True),
        ("99", {"retained": None}, None),
        ("99", {}, None),
        ("quality>=97.5", {"quality": 97.5, "higher_is_better": True}, True),
        ("accuracy >= 97.5%", {"quality": 97.4, "higher_is_better": True}, False),
        ("RMSE<=55", {"quality": 54.0, "higher_is_better": False}, True),
        ("RMSE<=55", {"quality": 56.0, "higher_is_better": False}, False),
    ],
)
def test_gates_by_the_point_estimate(text, row, passes):
    assert parse_gate(text).passes(row) is passes


def test_gates_by_the_interval_take_its_worse_end():
    row = {"quality": 98.0, "quality_low": 97.0, "quality_high": 99.0, "retained": 99.5, "retained_low": 98.0}
    assert not parse_gate("99", "interval").passes(row)
    assert not parse_gate("quality>=97.5", "interval").passes({**row, "higher_is_better": True})
    assert not parse_gate("quality<=98.5", "interval").passes({**row, "higher_is_better": False})
    assert parse_gate("quality<=99", "interval").passes({**row, "higher_is_better": False})


@pytest.mark.parametrize("text", ["", "x", "0", "101", "quality>", "99 pp", "-5"])
def test_bad_gates_say_what_to_give(text):
    with pytest.raises(PlanError) as caught:
        parse_gate(text)
    assert "quality>=97.5" in caught.value.hint


def test_retained_quality_in_both_directions():
    """Accuracy 80 of 100 keeps 80 %; an error that grew from 50 to 55 keeps 90 %."""
    up = retained({"quality": 80.0, "drop": 20.0, "drop_low": 10.0, "drop_high": 30.0, "higher_is_better": True})
    assert up == pytest.approx({"retained": 80.0, "retained_low": 70.0, "retained_high": 90.0})
    down = retained({"quality": 55.0, "drop": 5.0, "drop_low": 4.0, "drop_high": 6.0, "higher_is_better": False})
    assert down == pytest.approx({"retained": 90.0, "retained_low": 88.0, "retained_high": 92.0})
    anchor = retained({"quality": 80.0, "drop": None, "is_anchor": True, "higher_is_better": True})
    assert all(standard_passes(anchor).values())
    assert set(standard_passes({}).values()) == {None}


def test_only_the_gated_division_has_ranks_and_comes_first():
    bad = quality(0.9, 0.09)
    frame = table(measured_run(SPEEDS, distillation={"quality": bad}), gate=parse_gate("99"))
    found = ranks(frame)
    assert found["int8"] == (1, 2)
    row = frame[frame["method"] == "distillation"].iloc[0]
    assert row["division"] == "open"
    assert str(row["rank_best"]) == "<NA>"
    assert list(frame["method"])[-1] == "distillation"
    assert any("gated division: 99 %" in text for text in frame.attrs["notes"])
    assert set(table(measured_run(SPEEDS))["division"]) == {"open"}


def test_a_regression_workload_is_gated_by_its_error():
    frame = table(run_of((record(quality=rmse()), record("int8", quality=rmse(54.5, 0.4)))))
    row = frame[frame["method"] == "int8"].iloc[0]
    assert row["retained"] == pytest.approx(100 * (1 - 0.4 / 54.1))
    assert bool(row["pass_99"])
    assert not bool(row["pass_99_interval"])


# where, group, sort


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["target=openvino"], 3),
        (["target=openvino,tflite"], 5),
        (["target!=onnxruntime", "status=ok"], 4),
        (["method~int8"], 6),
        (["p50<1ms", "ranked=yes"], 2),
        (["p50_ns<=688000", "ranked=yes"], 2),
        (["speedup>=2.52x"], 3),
        (["size<100KiB", "ranked=true"], 3),
        (["coverage_macs>=95%"], 6),
        (["flips=0"], 0),
        (["STATUS=ok"], None),
    ],
)
def test_conditions(conditions, count):
    frame = table(run_of(board_records()))
    if count is None:
        with pytest.raises(PlanError):
            where(frame, conditions)
        return
    kept = where(frame, conditions)
    assert len(kept) == count, list(zip(kept["method"], kept["target"], strict=True))
    assert kept.attrs["notes"] == frame.attrs["notes"]


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("targt=x", "did you mean 'target'?"),
        ("zzz=1", "such as target"),
        ("p50<2q", "with ns"),
        ("target<3", "use ="),
        ("p50~3", "use <"),
        ("nonsense", "such as"),
        ("ranked=maybe", "yes or no"),
        ("p50<", "such as"),
    ],
)
def test_bad_conditions_say_what_to_give(condition, hint):
    with pytest.raises(PlanError) as caught:
        where(table(run_of(board_records())), [condition])
    assert hint in caught.value.hint


def test_any_column_of_numbers_sorts_by_its_direction():
    frame = table(run_of(board_records()), sort="stored_bytes")
    values = list(frame[frame["ranked"]]["stored_bytes"])
    assert values == sorted(values)
    values = list(table(run_of(board_records()), sort="compression").query("ranked")["compression"])
    assert values == sorted(values, reverse=True)
    with pytest.raises(PlanError):
        table(run_of(board_records()), sort="target")


def test_groups_cut_the_board_into_sections():
    frame = table(run_of(board_records()))
    frame.attrs["group"] = ["target"]
    assert len(sections(frame)) == 5
    assert all(len({row.target for row in section.rows}) <= 1 for section in sections(frame))


# over workloads


def test_the_geometric_mean_and_its_bootstrap_against_scipy():
    ratios = [1.1, 1.9, 0.8, 2.5, 1.4, 1.6, 3.0, 1.2]
    mean = geometric_mean(ratios)
    assert mean.point == pytest.approx(scipy_stats.gmean(ratios))
    peer = scipy_stats.bootstrap((ratios,), scipy_stats.gmean, method="percentile", n_resamples=20_000, rng=1)
    assert (mean.low, mean.high) == pytest.approx(tuple(peer.confidence_interval), rel=0.02)
    assert (mean.least, mean.most) == pytest.approx((0.8, 3.0))
    few = geometric_mean(ratios[:5])
    assert (few.low, few.high) == (None, None)


def many(workloads=7, without=None):
    records = []
    for number in range(workloads):
        name = f"w{number}"
        records.append(record(workload=name))
        records.append(record("int8", workload=name, latency=latency(1.0, speed_up=2 + number / 10)))
        if number != without:
            records.append(record("fp16", workload=name, latency=latency(2.0, speed_up=1.5 + number / 100)))
    return table(run_of(tuple(records)))


def test_methods_over_workloads():
    lines = {line.method: line for line in overall(many())}
    assert lines["int8"].speedup.point == pytest.approx(scipy_stats.gmean([2 + n / 10 for n in range(7)]))
    assert lines["int8"].rank == (1, 1)
    assert lines["fp16"].rank == (2, 2)
    assert lines["baseline"].rank == (3, 3)
    assert lines["int8"].speedup.low < lines["int8"].speedup.point < lines["int8"].speedup.high
    assert (lines["int8"].workloads, lines["int8"].of, lines["int8"].passes) == (7, 7, 7)
    assert lines["int8"].memory.point == pytest.approx(1.0)


def test_a_method_without_all_workloads_is_not_ranked_and_few_workloads_rank_nothing():
    lines = {line.method: line for line in overall(many(without=3))}
    assert lines["fp16"].rank is None
    assert lines["fp16"].missing == ("w3",)
    assert lines["int8"].rank == (1, 1)
    assert {line.rank for line in overall(many(workloads=5))} == {None}


@pytest.mark.parametrize("form", ["md", "csv", "json"])
def test_the_overall_board_as_a_file(form):
    lines = [replace(line, method="=cmd()|<script>", missing=("@x",)) for line in overall(many())]
    text = render_overall(lines, form).decode()
    if form == "csv":
        row = next(csv.DictReader(io.StringIO(text)))
        assert float(row["speedup"]) == lines[0].speedup.point
        assert row["method"].startswith("'=")
        assert row["missing"].startswith("'@")
    elif form == "json":
        assert json.loads(text)["rows"][0]["speedup"]["point"] == lines[0].speedup.point
    else:
        assert "<script>" not in text
        assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1


# why


def placement(op, macs=None, share=None, precision="int8", device="cpu", channels=None):
    return Placement(op, op.lower(), op, device, precision, macs, share, channels)


ANCHOR = record(placements=(placement("Conv", 100, 0.9, "float32"), placement("Relu", None, 0.1, "float32")))


def losing(*placements, **changes):
    cover = Coverage("int8", None, None, None)
    slow = latency(3.5, speed_up=0.8, verdict="slower")
    return record("int8", placements=placements, latency=slow, coverage=cover, **changes)


@pytest.mark.parametrize(
    ("placements", "said"),
    [
        (
            (
                placement("Conv", 100, 0.7),
                placement("QuantizeLinear", None, 0.2),
                placement("DequantizeLinear", None, 0.1),
            ),
            "unfused quantize and dequantize: 1 QuantizeLinear, 1 DequantizeLinear, 30 % of the time",
        ),
        (
            (placement("Conv", 60), placement("Gemm", 40, precision="float32")),
            "not in int8: 1 Gemm in float32, 40 % of MACs",
        ),
        (
            (placement("Conv", 100, 0.5), placement("Conv", 100, 0.5, device="gpu")),
            "fallback from cpu: 1 Conv, 50 % of the time",
        ),
        (
            (placement("Conv", 100, 0.8), placement("Reorder", None, 0.2)),
            "reorders and conversions: 1 Reorder, 20 % of the time",
        ),
        (
            (placement("Conv", 100, 0.9), placement("DynamicQuantizeLinear", None, 0.1)),
            "activations are quantized at run time",
        ),
        (
            (*tuple(placement("Mul", None, 0.1) for _ in range(9)), placement("Conv", 100, 0.1)),
            "10 operators against 2",
        ),
    ],
)
def test_why_a_cell_is_slow(placements, said):
    assert any(said in text for text in why_slow(losing(*placements), ANCHOR, {})), why_slow(
        losing(*placements), ANCHOR, {}
    )


def test_builtin_and_reference_kernels_are_named_where_the_anchor_has_fewer():
    kernels = ("XNNPACK Fully Connected GEMM", "LiteRT builtin BATCH_MATMUL", "ref_any_f32", "jit_avx512_refined")
    shares = (0.1, 0.5, 0.2, 0.2)
    named = zip(kernels, shares, strict=True)
    placements = tuple(replace(placement("MatMul", 100, share), kernel=kernel) for kernel, share in named)
    said = "in builtin or reference kernels: 2 MatMul, 70 % of the time"
    assert said in why_slow(losing(*placements), ANCHOR, {})
    alike = replace(ANCHOR, placements=placements)
    assert said not in why_slow(losing(*placements), alike, {})


def test_odd_channels_and_memory_bound_batches():
    odd = losing(placement("Conv", 100, 1.0, channels=37), provenance={"channel_multiple": "16"})
    assert any(
        "odd channels: 37 fill no whole vector of 16 lanes, 100 % of MACs" in t for t in why_slow(odd, ANCHOR, {})
    )
    even = losing(placement("Conv", 100, 1.0, channels=48), provenance={"channel_multiple": "16"})
    assert why_slow(even, ANCHOR, {}) == ()
    wide = StepRecord("fit", "w", {}, 0, 1.0, "p", "1", {"parameters": 50_000_000, "macs": 50_000_000})
    big = losing(placement("Gemm", 100, 1.0), lineage=(wide,))
    big = replace(big, artifact=replace(big.artifact, artifact_bytes=200 << 20))
    facts = {"caches": "L1 Data 32K, L2 Unified 1024K, L3 Unified 36608K"}
    assert any("memory-bound at batch 1: 1.0 MACs per weight, and 200 MiB" in t for t in why_slow(big, ANCHOR, facts))
    assert why_slow(big, ANCHOR, {}) == ()
    assert last_level_cache_bytes(facts["caches"]) == 36608 * 1024


def test_cells_that_win_fail_or_are_the_anchor_need_no_reason():
    queer = (placement("QuantizeLinear", None, 1.0),)
    won = replace(losing(*queer), latency=latency(1.0, speed_up=3.0))
    assert why_slow(won, ANCHOR, {}) == ()
    assert why_slow(replace(ANCHOR, placements=queer), ANCHOR, {}) == ()
    assert why_slow(replace(losing(*queer), status="failed"), ANCHOR, {}) == ()


def test_the_reason_stands_beside_the_losing_cell():
    run = run_of((ANCHOR, losing(placement("Conv", 60, 0.6), placement("QuantizeLinear", None, 0.4))))
    frame = table(run)
    assert "unfused" in frame[frame["method"] == "int8"].iloc[0]["why"]
    assert "what ran: unfused quantize" in render(frame, "md").decode()


# the command line


def test_the_options_on_the_reference_run(capsys):
    reference = "results/reference"
    assert call(["leaderboard", reference, "--gate", "99.9", "--gate-by", "interval", "--where", "target=tflite"]) == 0
    assert "gated division: 99.9 %" in capsys.readouterr().out
    assert call(["leaderboard", reference, "--overall", "--format", "md"]) == 0
    assert "| distillation | onnxruntime |" in capsys.readouterr().out
    assert call(["leaderboard", reference, "--group", "target,verdict"]) == 0
    for bad in (
        ["--gate", "x"],
        ["--where", "x"],
        ["--group", "p50_ns"],
        ["--overall", "--format", "parquet", "-o", "x.parquet"],
    ):
        capsys.readouterr()
        assert call(["leaderboard", reference, *bad]) == 2
        assert "hint:" in capsys.readouterr().err
