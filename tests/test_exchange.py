from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import records
from scipy import stats as scipy_stats

import harness
from harness.cli.main import call
from harness.codec import dumps
from harness.errors import PlanError, RecordError
from harness.exchange import benchmark_json, system_description
from harness.exchange.fleet import fleet
from harness.exchange.index import build_index, schema, write_rows
from harness.exchange.mlperf import KEYS
from harness.exchange.rows import COLUMNS
from harness.leaderboard.columns import COLUMNS as BOARD
from harness.store import layout, load_run
from harness.store.manifest import START, Entry, digest
from harness.types import Interval, LayerDamage, Layers, Loaded, Robustness, SharedObject

pq = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parents[1]
REFERENCE = next((ROOT / "results" / "reference").glob("*/2*"))
HOSTILE = '=cmd()|<script>alert(1)</script>\n\u202e"'


def test_results_are_a_table_with_units():
    frame = harness.load_results(ROOT / "results" / "reference")
    assert set(frame.columns) >= {column.name for column in BOARD}
    assert frame.attrs["units"]["p50_ns"] == "ns"
    assert frame["status"].value_counts()["ok"] >= 30
    assert frame["p50_ns"].dtype == "float64"
    with pytest.raises(PlanError):
        harness.load_results(ROOT / "nowhere")


def test_import_stays_light_until_results_are_asked_for():
    code = "import harness, sys; assert 'pandas' not in sys.modules and 'typing' not in set(sys.modules) - loaded"
    script = f"import sys; loaded = set(sys.modules)\n{code}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def named(run):
    labels = {"workload": HOSTILE, "method": HOSTILE, "target": HOSTILE}
    return replace(run, records=tuple(replace(item, labels=labels) for item in run.records))


def test_pytest_benchmark_reads_what_is_exported(tmp_path):
    run = load_run(REFERENCE)
    (tmp_path / "0001_a.json").write_bytes(benchmark_json(run))
    tool = shutil.which("pytest-benchmark") or str(Path(sys.executable).with_name("pytest-benchmark"))
    if not Path(tool).is_file():
        pytest.skip("the command of pytest-benchmark is not on the path")
    done = subprocess.run(
        [tool, "compare", str(tmp_path / "0001_a.json"), "--columns=min,median,rounds", "--csv", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "channel-pruning+int8@tflite[1-1]" in done.stdout
    (csv,) = tmp_path.glob("o*")
    line = next(line for line in csv.read_text().splitlines() if "channel-pruning+int8@tflite" in line)
    data = json.loads((tmp_path / "0001_a.json").read_text())
    ours = next(item for item in data["benchmarks"] if item["name"] == "channel-pruning+int8@tflite[1-1]")
    assert str(ours["stats"]["min"])[:8] in line


def test_benchmark_statistics_are_those_of_the_samples():
    run = load_run(REFERENCE)
    data = json.loads(benchmark_json(run))
    (item,) = [one for one in data["benchmarks"] if one["name"] == "baseline@onnxruntime[1-1]"]
    record = run.by_cell[item["extra_info"]["cell_id"]]
    seconds = [
        ns / 1e9
        for found in run.sets_of(record)
        for launch in found.launches
        if launch.cell_id == record.cell_id and launch.noise.verdict != "noisy"  # more than six others are left
        for batch in launch.batches
        for ns in batch.ns
    ]
    assert item["stats"]["median"] == statistics.median(seconds)
    assert item["stats"]["stddev"] == pytest.approx(statistics.stdev(seconds))
    assert item["stats"]["rounds"] == len(seconds) == record.latency.samples
    assert item["stats"]["mean"] * 1e9 == pytest.approx(record.latency.mean_ns)


def test_hostile_names_are_harmless_in_the_benchmark_file():
    raw = benchmark_json(named(load_run(REFERENCE)))
    assert raw.isascii()
    assert "\n" not in json.loads(raw)["benchmarks"][0]["name"]


def test_a_system_description_has_the_keys_of_the_checker_and_guesses_nothing():
    info = load_run(REFERENCE).info
    run = load_run(REFERENCE)
    found = system_description(info, run.records)
    ran = {record.provenance["runtime"] for record in run.records if "runtime" in record.provenance}
    assert set(found["framework"].split(", ")) == ran
    own = replace(records.record(), provenance={"runtime": "somebody-elses 3.1"})
    assert system_description(info, (own,))["framework"] == "somebody-elses 3.1"
    assert system_description(info)["framework"].startswith("not available")
    assert len(KEYS) == len(set(KEYS)) == 35
    assert set(found) == set(KEYS)
    assert found["host_processor_model_name"] == info.host_facts["cpu_model_name"]
    assert found["accelerators_per_node"] == "0"
    assert "nverified" in found["sw_notes"]
    assert found["host_storage_type"].startswith("not available")
    assert all(isinstance(value, str) and value for value in found.values())


def test_export_as_a_command(tmp_path, capsys):
    for form in ("csv", "json", "pytest-benchmark", "mlperf-system"):
        assert call(["export", str(REFERENCE), "--format", form, "-o", str(tmp_path / form)]) == 0
    assert call(["export", str(REFERENCE), "--format", "parquet", "-o", str(tmp_path / "r.parquet")]) == 0
    assert pq.read_table(tmp_path / "r.parquet").num_rows == len(load_run(REFERENCE).records)
    assert call(["export", str(REFERENCE), "--format", "parquet"]) == 2
    assert call(["export", str(REFERENCE), "--format", "mlperf-system"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 35


def tree(root: Path, hosts: int = 3, records_of=lambda host: ()) -> Path:
    """Runs of several hosts, as files: run.json, cells and a manifest."""
    for host in range(hosts):
        folder = root / f"host-{host}" / "run"
        (folder / "cells").mkdir(parents=True)
        info = records.info(host_name=f"host-{host}", run_id="run")
        (folder / layout.RUN).write_bytes(dumps(info))
        lines, previous = [], START
        for seq, record in enumerate(records_of(host)):
            raw = dumps(record)
            (folder / layout.cell_file(record.cell_id)).write_bytes(raw)
            entry = Entry(seq, layout.cell_file(record.cell_id), digest(raw), previous)
            lines.append(entry.line)
            previous = digest(entry.line)
        (folder / layout.MANIFEST).write_bytes(b"\n".join(lines) + b"\n")
    return root


def pair(host: int):
    speeds = (2.0, 2.5, 3.2)
    return (records.record(), records.record("int8", latency=records.latency(1.0, speed_up=speeds[host])))


def test_a_fleet_leaves_out_targets_that_run_no_model(tmp_path):
    def made(_host: int):
        idle = records.record("baseline", "idle", flags=("noisy", "runs_no_model"))
        return (records.record(), idle)

    build_index(tree(tmp_path, records_of=made))
    assert {line.target for line in fleet(tmp_path)} == {"onnxruntime"}


def test_a_fleet_is_the_geometric_mean_over_machines(tmp_path):
    built = build_index(tree(tmp_path, records_of=pair))
    assert (built.records, built.runs, built.problems) == (6, 3, ())
    assert pq.read_schema(built.file).names == list(COLUMNS)
    lines = {line.method: line for line in fleet(tmp_path)}
    logs = [math.log(speed) for speed in (2.0, 2.5, 3.2)]
    low, high = scipy_stats.t.interval(0.95, 2, loc=statistics.fmean(logs), scale=scipy_stats.sem(logs))
    assert lines["int8"].speedup == pytest.approx(math.exp(statistics.fmean(logs)))
    assert lines["int8"].low == pytest.approx(math.exp(low))
    assert lines["int8"].high == pytest.approx(math.exp(high))
    assert lines["int8"].hosts == 3
    assert lines["baseline"].speedup == pytest.approx(1.0)


def test_an_index_says_what_the_board_says():
    built = build_index(ROOT / "results" / "reference", out := Path("/tmp") / f"index-{id(pair)}.parquet")
    try:
        ours = pq.read_table(built.file).to_pandas().set_index("cell_id")
        board = harness.load_results(ROOT / "results" / "reference").set_index("cell_id").loc[ours.index]
        for name in ("p50_ns", "p50_low_ns", "speedup", "speedup_high", "quality", "quality_low", "drop", "p90_ns"):
            assert ours[name].fillna(-1).tolist() == pytest.approx(board[name].fillna(-1).tolist()), name
        for name in ("host", "run", "workload", "method", "target", "status", "verdict", "noise"):
            assert ours[name].astype(object).fillna("").tolist() == board[name].fillna("").tolist(), name
    finally:
        out.unlink()


def test_an_index_is_filtered_by_what_a_cell_kept_of_its_anchor_and_ran_on(tmp_path):
    damage = (LayerDamage("conv_2", "Conv", 2, 11.25), LayerDamage("fc", "Gemm", 5, 30.0))
    photos = Robustness(20, {"jpeg:3": 0.9}, Interval(0.90, 0.85, 0.94), Interval(-0.03, -0.05, -0.01))
    known = {"runtime": "onnxruntime 1.31.1", "host_tier": "T2: cores are shared"}
    base = records.record("int8", provenance=known, layers=Layers(20, damage), robustness=photos)
    close = replace(
        base.quality, fidelity={"top1_agreement": 0.99, "sqnr_db": 24.5},
        agreement={"top1_agreement": Interval(0.99, 0.97, 0.998)},
    )  # fmt: skip
    mute = records.record("fp16", layers=Layers(reason="it does not tell"), robustness=Robustness(reason="no images"))
    old = replace(mute, quality=replace(mute.quality, fidelity={"top1_agreement": 0.5}, agreement={}), cell_id="0" * 64)
    root = tree(tmp_path, 1, lambda _host: (records.record(), replace(base, quality=close), mute, old))
    info = root / "host-0" / "run" / layout.RUN
    objects = (SharedObject("b.so", 2, None), SharedObject("a.so", 1, "f00"))
    info.write_bytes(dumps(records.info(host_name="host-0", run_id="run", loaded={"onnxruntime": Loaded(objects)})))
    table = pq.read_table(
        build_index(root).file, filters=[("worst_layer_db", "<", 20.0), ("top1_agreement_low", ">=", 0.95)]
    ).to_pylist()
    assert [(row["method"], row["worst_layer"], row["worst_layer_op"]) for row in table] == [("int8", "conv_2", "Conv")]
    (row,) = table
    assert (row["loaded"], row["runtime"], row["host_tier"]) == ("a.so@f00 b.so@", "onnxruntime 1.31.1", "T2")
    assert (row["worst_layer_db"], row["top1_agreement_high"]) == (11.25, 0.998)
    board = harness.load_results(root).set_index("cell_id")
    every = pq.read_table(root / "index.parquet").to_pandas().set_index("cell_id").loc[board.index]
    shared = ("top1_agreement", "top1_agreement_low", "sqnr_db", "corrupted_quality", "corrupted_drop")
    for name in shared:
        assert every[name].fillna(-1).tolist() == pytest.approx(board[name].astype(float).fillna(-1).tolist()), name
    for name in ("runtime", "host_tier"):
        assert every[name].astype(object).fillna("").tolist() == board[name].fillna("").tolist(), name
    assert every["corrupted_drop"].max() == pytest.approx(3.0)


def test_an_older_index_without_what_a_fleet_does_not_read_is_ranked(tmp_path):
    build_index(tree(tmp_path, records_of=pair))
    file = tmp_path / "index.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["worst_layer_db", "loaded"]), file)
    assert {line.hosts for line in fleet(tmp_path)} == {3}


def test_damaged_records_are_left_out_by_name_and_the_rest_is_indexed(tmp_path, capsys):
    root = tree(tmp_path, records_of=lambda host: (*pair(host), records.record("fp16"), records.record("binarization")))
    cells = sorted((root / "host-0" / "run" / "cells").glob("*.json"))
    raw = bytearray(cells[0].read_bytes())
    raw[40] ^= 1
    cells[0].write_bytes(raw)
    cells[1].write_bytes(cells[1].read_bytes()[:50])
    future = dumps(json.loads(cells[2].read_bytes()) | {"schema": 99})
    cells[2].write_bytes(future)
    (root / "host-0" / "run" / layout.MANIFEST).unlink()
    built = build_index(root)
    assert built.records == 3 * 4 - len(built.problems)
    assert {Path(text.split(": ")[0]).name for text in built.problems} >= {cells[1].name, cells[2].name}
    assert any("schema 99" in text for text in built.problems)
    assert call(["index", str(root)]) == 4
    assert cells[1].name in capsys.readouterr().err
    flipped = min((root / "host-1" / "run" / "cells").glob("*.json"))
    flipped.write_bytes(flipped.read_bytes().replace(b"quick", b"quack"))
    assert any(flipped.name in text and "hash" in text for text in build_index(root).problems)


def test_a_machine_counts_a_cell_once_as_in_its_newest_record(tmp_path):
    row = dict.fromkeys(COLUMNS) | {
        "host": "a", "workload": "w", "method": "m", "target": "t", "status": "ok", "kind": "measured",
        "threads": 1, "batch": 1, "cell_id": "c", "anchor_precision": "float32", "verdict": "faster",
    }  # fmt: skip
    rows = [
        row | {"speedup": 4.0, "finished_utc": "2026-02-01"},
        row | {"speedup": 1.0, "finished_utc": "2026-01-01"},
        row | {"speedup": 2.0, "finished_utc": "2026-01-15", "host": "b"},
    ]
    write_rows(iter(tuple(item[name] for name in COLUMNS) for item in rows), tmp_path / "i.parquet")
    (line,) = fleet(tmp_path / "i.parquet")
    assert line.hosts == 2
    assert line.speedup == pytest.approx(math.sqrt(8))


def test_what_is_no_index_is_refused(tmp_path, capsys):
    with pytest.raises(RecordError, match="no index"):
        fleet(tmp_path)
    (tmp_path / "index.parquet").write_bytes(b"PAR1 not really PAR1")
    assert call(["fleet", str(tmp_path)]) == 4
    pq.write_table(schema().empty_table().select(["host"]), tmp_path / "index.parquet")
    assert call(["fleet", str(tmp_path)]) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_fleet_as_a_command(tmp_path, capsys):
    hostile = lambda host: tuple(  # noqa: E731  a factory of one line
        replace(item, labels={**item.labels, "method": HOSTILE + item.labels["method"]}) for item in pair(host)
    )
    assert call(["index", str(tree(tmp_path, records_of=hostile))]) == 0
    capsys.readouterr()
    assert call(["fleet", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\u202e" not in shown
    assert "2.520" in shown
    assert call(["fleet", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["hosts"] == 3
    assert call(["fleet", str(tmp_path), "--workload", "nothing"]) == 2
    assert call(["fleet", str(tmp_path), "--sort", "nothing"]) == 2
