from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from records import info, launch_set, record

from harness import codec
from harness.errors import RecordError
from harness.store import RunStore, load_run, manifest, verify_run

SETS = tuple(launch_set("g", index, {"a": 3.0}, anchor=None, rounds=1, iterations=2) for index in range(3))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with RunStore.create(tmp_path_factory.mktemp("small"), info()) as store:
        for samples in SETS:
            store.write_set(samples)
    return store.folder


def copied(folder, tmp_path, name="copy"):
    target = tmp_path / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target


def test_a_manifest_cut_at_any_byte_reads_as_the_whole_lines_before(small):
    raw = (small / "manifest.jsonl").read_bytes()
    whole = manifest.parse(raw).entries
    for length in range(len(raw) + 1):
        chain = manifest.parse(raw[:length])
        lines = raw[:length].count(b"\n")
        assert chain.entries == whole[:lines]
        assert chain.wrong == ""
        assert chain.torn == (length > 0 and raw[length - 1 : length] != b"\n")
        assert chain.good_bytes == len(b"".join(raw.splitlines(keepends=True)[:lines]))


def heal_at(small, tmp_path, lengths):
    raw = (small / "manifest.jsonl").read_bytes()
    folder = copied(small, tmp_path)
    for length in lengths:
        (folder / "manifest.jsonl").write_bytes(raw[:length])
        assert load_run(folder).problems == ()
        assert len(load_run(folder).sets) == 3
        with RunStore(folder) as store:
            assert store.sets("g") == SETS
        assert verify_run(folder) == []


def test_a_cut_manifest_is_healed_without_losing_a_file(small, tmp_path):
    raw = (small / "manifest.jsonl").read_bytes()
    ends = [at + 1 for at, byte in enumerate(raw) if byte == ord("\n")]
    near = {at + by for at in ends for by in (-2, -1, 0, 1)}
    heal_at(small, tmp_path, sorted({0, 1, 100, *(at for at in near if at <= len(raw))}))


@pytest.mark.slow
def test_a_manifest_cut_at_any_byte_is_healed_without_losing_a_file(small, tmp_path):
    heal_at(small, tmp_path, range((small / "manifest.jsonl").stat().st_size + 1))


def test_a_file_cut_at_any_byte_is_one_problem_by_name_and_the_rest_loads(small, tmp_path):
    folder = copied(small, tmp_path)
    path = folder / "raw/g-00001.json.gz"
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        run = load_run(folder)
        assert [problem.file for problem in run.problems] == ["raw/g-00001.json.gz"]
        assert tuple(run.sets.values()) == (SETS[0], SETS[2])


def test_a_cut_file_that_no_line_vouches_for_is_ignored_on_resume(small, tmp_path):
    folder = copied(small, tmp_path)
    path, lines = folder / "raw/g-00002.json.gz", (folder / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    raw = path.read_bytes()
    for length in range(0, len(raw), 5):
        path.write_bytes(raw[:length])
        (folder / "manifest.jsonl").write_bytes(b"".join(lines[:-1]))
        with RunStore(folder) as store:
            assert store.sets("g") == SETS[:2]
    with RunStore(folder) as store:
        store.write_set(SETS[2])
    assert verify_run(folder) == []


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_bit_is_found_in_every_byte(small, tmp_path, bit):
    folder = copied(small, tmp_path)
    for name in ("raw/g-00000.json.gz", "run.json"):
        raw = (folder / name).read_bytes()
        for at in range(0, len(raw), 7):
            (folder / name).write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
            assert [problem.file for problem in load_run(folder).problems] == [name]
        (folder / name).write_bytes(raw)
    assert load_run(folder).problems == ()


def test_a_flipped_bit_in_the_manifest_is_found(small, tmp_path):
    folder = copied(small, tmp_path)
    raw = (folder / "manifest.jsonl").read_bytes()
    for at in range(0, len(raw), 11):
        (folder / "manifest.jsonl").write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        assert verify_run(folder)
        assert len(load_run(folder).sets) >= 2


def test_a_broken_chain_is_not_resumed(small, tmp_path):
    folder = copied(small, tmp_path)
    lines = (folder / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "manifest.jsonl").write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(RecordError, match="line 2 has the number 2 where 1 is due"):
        RunStore(folder)
    (problem,) = [item for item in verify_run(folder) if item.file == "manifest.jsonl"]
    assert "line 2" in problem.what


def test_zeros_after_a_power_cut_are_cut_off(small, tmp_path):
    folder = copied(small, tmp_path)
    raw = (folder / "manifest.jsonl").read_bytes()
    (folder / "manifest.jsonl").write_bytes(raw + bytes(300))
    with RunStore(folder) as store:
        assert store.sets("g") == SETS
    assert (folder / "manifest.jsonl").read_bytes() == raw


def test_leftovers_of_a_killed_write_are_removed(small, tmp_path):
    folder = copied(small, tmp_path)
    leftover = folder / "raw/.g-00009.json.gz.123.partial"
    leftover.write_bytes(b"half")
    assert verify_run(folder) == []
    RunStore(folder).close()
    assert not leftover.exists()


class Kill(BaseException):
    """Stands for a kill: nothing may catch it."""


def new_run(root):
    with RunStore.create(root, info()) as store:
        return store.folder


def work(folder):
    """Do what is not done yet, as a run does, with a record that is written twice."""
    with RunStore(folder) as store:
        for samples in SETS:
            if store.set_at("g", samples.index) is None:
                store.write_set(samples)
        made = record()
        if store.part(made.cell_id, "memory", type(made.memory)) is None:
            store.write_part(made.cell_id, "memory", made.memory)
        store.write_scores(made.cell_id, np.ones((2, 1)))
        store.write_record(record(flags=("first",)))
        store.write_record(made)


@pytest.mark.parametrize("after", range(24))
def test_a_kill_at_any_step_loses_nothing_that_was_finished(tmp_path, monkeypatch, after):
    folder = new_run(tmp_path)
    steps = {"left": after}

    def stepped(function, *, torn):
        def call(*args):
            steps["left"] -= 1
            if steps["left"] < 0:
                torn(*args)
                raise Kill
            return function(*args)

        return call

    def half_line(fd, raw):
        os.write(fd, raw[: len(raw) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(codec, "write_whole", stepped(codec.write_whole, torn=lambda *_args: None))
        patch.setattr(manifest, "_write_all", stepped(manifest._write_all, torn=half_line))
        try:
            work(folder)
        except Kill:
            assert load_run(folder).problems == ()
    work(folder)
    assert tuple(load_run(folder).sets.values()) == SETS
    assert load_run(folder).records == (record(),)
    assert {problem.file for problem in verify_run(folder)} <= {
        f"cells/{record().cell_id}.json"
    }  # its figures are made up


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from records import launch_set
from harness.store import RunStore
with RunStore(Path(sys.argv[1])) as store:
    for index in range(100000):
        if store.set_at("k", index) is None:
            store.write_set(launch_set("k", index, {"a": 3.0}, anchor=None, rounds=1))
            print(index, flush=True)
"""


def test_kill_minus_nine_while_writing(tmp_path):
    folder = new_run(tmp_path)
    seen: list[int] = []
    for lines in (1, 7, 20):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, folder, Path(__file__).parent], stdout=subprocess.PIPE, text=True
        )
        seen += [int(child.stdout.readline()) for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        seen += [int(line) for line in rest.split()]
        with RunStore(folder) as store:
            assert len(store.sets("k")) >= len(seen)
        assert verify_run(folder) == []
    assert len(seen) == len(set(seen))
