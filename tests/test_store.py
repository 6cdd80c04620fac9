from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from records import HOST_ID, Host, cell, info, launch_set, record

from harness import codec
from harness.config import parse_config, read_config
from harness.errors import HarnessError, RecordError
from harness.store import RunStore, find_resumable, load_run, open_run, verify_run
from harness.types import Memory, Quality


def filled(root):
    made = record()
    with RunStore.create(root, info()) as store:
        samples = launch_set("g1", 0, {made.cell_id: 3.0}, anchor=made.cell_id)
        store.write_set(samples)
        store.write_part(made.cell_id, "memory", made.memory)
        store.write_scores(made.cell_id, np.ones((450, 1), np.float32))
        store.write_record(made)
    return store.folder


def test_what_is_written_reads_back_equal(tmp_path):
    made, samples = record("int8"), launch_set("g1", 2, {"a": 3.0, "b": 1.0}, anchor="a")
    scores = np.arange(6, dtype=np.float32).reshape(3, 2)
    with RunStore.create(tmp_path, info()) as store:
        assert store.write_set(samples) == store.set_name(samples) == "g1-00002"
        store.write_part(made.cell_id, "memory", made.memory)
        store.write_scores(made.cell_id, scores)
        store.write_record(made)
    with RunStore(store.folder) as again:
        assert again.resumed
        assert not store.resumed
        assert again.records() == (made,)
        assert again.record(made.cell_id) == made
        assert again.record("nothing") is None
        assert again.sets("g1") == (samples,)
        assert again.sets("g2") == ()
        assert again.set_at("g1", 0) is None
        assert again.part(made.cell_id, "memory", Memory) == made.memory
        assert again.part(made.cell_id, "memory", Quality) is None
        assert again.part(made.cell_id, "check", Memory) is None
        np.testing.assert_array_equal(again.scores(made.cell_id), scores)
        assert again.scores("nothing") is None
    run = load_run(store.folder)
    assert run.records == (made,)
    assert run.sets == {"g1-00002": samples}
    assert not run.problems
    assert run.info == store.info
    assert run.info.run_id == store.folder.name


def test_layout_is_the_one_documented(tmp_path):
    folder = filled(tmp_path)
    assert folder.relative_to(tmp_path).as_posix() == "build-box-local-3f9ac0de/20261121T101112Z-7b1d44aa"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    cell_id = record().cell_id
    assert names == [
        ".lock",
        "bench.toml",
        f"cells/{cell_id}.json",
        "manifest.jsonl",
        f"parts/{cell_id}-memory.json",
        "raw/g1-00000.json.gz",
        "run.json",
        f"scores/{cell_id}.npy",
    ]
    assert parse_config((folder / "bench.toml").read_text()) == info().request


def test_run_id_comes_from_time_and_plan_and_never_clashes(tmp_path):
    stores = [RunStore.create(tmp_path, info(run_id="", host_name="")) for _ in range(3)]
    names = [store.info.run_id for store in stores]
    assert names == ["20261121T101112Z-7b1d44aa", "20261121T101112Z-7b1d44aa-2", "20261121T101112Z-7b1d44aa-3"]
    for store in stores:
        store.close()


def test_equal_sets_give_equal_files(tmp_path):
    samples = launch_set("g1", 0, {"a": 3.0}, anchor="a")
    raws = []
    for number in range(2):
        with RunStore.create(tmp_path / str(number), info()) as store:
            store.write_set(samples)
        raws.append((store.folder / "raw/g1-00000.json.gz").read_bytes())
    assert raws[0] == raws[1]


def test_sets_come_in_order_of_index_whatever_the_digits(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        for index in (11000, 2000, 0):
            store.write_set(launch_set("g-1", index, {"a": 3.0}, anchor="a"))
        assert [item.index for item in store.sets("g-1")] == [0, 2000, 11000]


def test_a_record_that_is_replaced_keeps_its_history_in_the_chain(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        store.write_record(record())
        store.write_record(record(flags=("noisy",)))
    assert load_run(store.folder).records == (record(flags=("noisy",)),)
    lines = [json.loads(line) for line in (store.folder / "manifest.jsonl").read_text().splitlines()]
    path = f"cells/{record().cell_id}.json"
    assert [line["path"] for line in lines] == ["run.json", "bench.toml", path, path]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[0]) == {"seq", "path", "sha256", "prev_sha256"}


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "x" * 200])
def test_names_cannot_leave_the_folder(tmp_path, name):
    with RunStore.create(tmp_path, info()) as store, pytest.raises(RecordError, match="file name"):
        store.write_record(replace(record(), cell_id=name))


def test_a_nan_is_refused_when_it_is_written(tmp_path):
    bad = replace(record(), latency=replace(record().latency, mean_ns=float("nan")))
    with RunStore.create(tmp_path, info()) as store, pytest.raises(RecordError, match="cells/"):
        store.write_record(bad)


def test_two_processes_cannot_write_one_run(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        with pytest.raises(HarnessError, match=rf"is being written by process {os.getpid()}"):
            RunStore(store.folder)
        code = "import sys; from pathlib import Path; from harness.store import RunStore; RunStore(Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, store.folder], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"process {os.getpid()}" in done.stderr
    RunStore(store.folder).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    folder = filled(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from harness.store import RunStore; "
        "store = RunStore(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == -signal.SIGKILL
    RunStore(folder).close()


def test_resumable_is_the_newest_unfinished_run_of_the_plan_and_host(tmp_path):
    for run_id, started in (("a", "2026-11-20T00:00:00"), ("b", "2026-11-22T00:00:00"), ("c", "2026-11-21T00:00:00")):
        RunStore.create(tmp_path, info(run_id=run_id, started_utc=started)).close()
    RunStore.create(tmp_path, info(run_id="other", plan_sha256="ff" * 32, started_utc="2026-12-01T00:00:00")).close()
    RunStore.create(tmp_path, info(run_id="far", host_id=HOST_ID[:8] + "1" * 56, started_utc="2026-12-01")).close()
    assert find_resumable(tmp_path, info()).name == "b"
    with open_run(tmp_path, info(run_id="")) as store:
        assert store.resumed
        assert store.folder.name == "b"
        store.finish(Host(state={"loadavg": "0.5"}))
    assert find_resumable(tmp_path, info()).name == "c"
    assert load_run(store.folder).info.host_state_after == {"loadavg": "0.5"}
    with open_run(tmp_path, info(run_id="new"), fresh=True) as store:
        assert not store.resumed
        assert store.folder.name == "new"


def test_a_run_that_cannot_be_read_is_not_resumed(tmp_path):
    first = RunStore.create(tmp_path, info(run_id="a"))
    first.close()
    broken = first.folder.parent / "b"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    assert find_resumable(tmp_path, info()) == first.folder
    (first.folder / "manifest.jsonl").write_text("{}\n{}\n")
    assert find_resumable(tmp_path, info()) is None
    assert find_resumable(tmp_path / "nowhere", info()) is None


def test_a_resumed_run_is_asked_for_what_is_asked_now(tmp_path):
    """Energy was added on the command line: it is measured, so the run and its bench.toml say so."""
    first = info(run_id="a")
    RunStore.create(tmp_path, first).close()
    more = replace(first.request, energy=True, strict=True)
    with open_run(tmp_path, info(run_id="", request=more, command=("harness", "bench", "--energy"))) as store:
        assert store.resumed
    found = load_run(store.folder)
    assert not found.problems
    assert (found.info.request, found.info.command) == (more, ("harness", "bench", "--energy"))
    assert (found.info.run_id, found.info.started_utc) == ("a", first.started_utc)
    assert read_config(store.folder / "bench.toml") == more
    assert not [problem for problem in verify_run(store.folder) if problem.file in {"run.json", "bench.toml"}]


def test_a_run_is_resumed_after_something_was_installed_and_not_after_something_was_changed(tmp_path):
    first = info(run_id="a")
    RunStore.create(tmp_path, first).close()
    added = {**first.packages, "tensorrt": "10.0"}
    assert find_resumable(tmp_path, replace(first, packages={**first.packages, "numpy": "9.9"})) is None
    assert find_resumable(tmp_path, replace(first, packages={"numpy": first.packages["numpy"]})) is None
    with open_run(tmp_path, replace(first, run_id="", packages=added)) as store:
        assert store.resumed
    assert load_run(store.folder).info.packages == added


def test_a_set_that_was_damaged_counts_as_not_there_and_can_be_measured_again(tmp_path):
    folder = filled(tmp_path)
    path = folder / "raw/g1-00000.json.gz"
    path.write_bytes(path.read_bytes()[:-7])
    assert [problem.file for problem in load_run(folder).problems] == ["raw/g1-00000.json.gz"]
    with RunStore(folder) as store:
        assert store.set_at("g1", 0) is None
        store.write_set(launch_set("g1", 0, {record().cell_id: 3.0}, anchor=None))
    assert not load_run(folder).problems


def test_newer_schema_is_refused_by_name_and_the_rest_loads(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        store.write_record(record())
        store.write_record(record("int8"))
    newer = f"cells/{cell('int8').cell_id}.json"
    data = codec.to_data(record("int8")) | {"schema": 2, "surprise": []}
    (store.folder / newer).write_bytes(codec.dumps(data))
    (store.folder / "manifest.jsonl").write_bytes(b"")
    run = load_run(store.folder)
    assert run.records == (record(),)
    (problem,) = run.problems
    assert problem.file == newer
    assert "schema 2" in problem.what
    assert "up to 1" in problem.what


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="holds no run"):
        load_run(tmp_path)
    with pytest.raises(RecordError, match="holds no run"):
        verify_run(tmp_path)
