from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from records import HOST_ID, Host, cell, info, launch_set, record

from harness.profiles import profile_named
from harness.stats import quality, summarise
from harness.store import RunStore, verify_run

ANCHOR, FAST = cell().cell_id, cell("int8").cell_id
SETS = tuple(launch_set("g", index * 1000, {ANCHOR: 3.0, FAST: 1.2}, anchor=ANCHOR, rounds=6) for index in range(6))
rng = np.random.default_rng(0)
SCORES = {
    ANCHOR: (rng.random((200, 1)) < 0.95).astype(float),
    FAST: (rng.random((200, 1)) < 0.93).astype(float),
}


def judged(cell_id):
    anchor = None if cell_id == ANCHOR else SCORES[ANCHOR]
    return quality(
        SCORES[cell_id],
        anchor,
        metric="accuracy",
        unit="%",
        higher_is_better=True,
        interval="wilson",
        items=200,
        aggregate=lambda scores: float(np.mean(scores)),
    )


def true_record(method):
    made = record(method)
    latency = summarise(made.cell_id, ANCHOR, SETS, profile_named("quick"))
    names = tuple(RunStore.set_name(item) for item in SETS)
    return replace(made, latency=latency, quality=judged(made.cell_id), sets=names)


def true_run(root, *changed):
    records = {made.cell_id: made for made in (true_record("baseline"), true_record("int8"), *changed)}
    with RunStore.create(root, info()) as store:
        for item in SETS:
            store.write_set(item)
        for cell_id, scores in SCORES.items():
            store.write_scores(cell_id, scores)
            store.write_part(cell_id, "memory", record().memory)
        for made in records.values():
            store.write_record(made)
        store.finish(Host(state={}))
    return store.folder


def test_a_run_whose_figures_follow_from_its_samples_has_no_problem(tmp_path):
    assert verify_run(true_run(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made: {"latency": replace(made.latency, mean_ns=made.latency.mean_ns * (1 + 1e-6))}, "mean_ns is"),
        (
            lambda made: {"latency": replace(made.latency, verdict="equivalent")},
            "verdict is equivalent, recomputed faster",
        ),
        (lambda made: {"latency": replace(made.latency, ratio=None)}, "ratio is None"),
        (lambda made: {"latency": None}, "is ok and has no latency"),
        (lambda made: {"sets": made.sets[1:]}, "launches is 6, recomputed 5"),
        (lambda made: {"sets": (*made.sets, "g-99999")}, "launch-set g-99999 missing"),
        (lambda made: {"sets": ()}, "latency cannot be recomputed"),
        (
            lambda made: {"quality": replace(made.quality, lost=made.quality.lost + 1)},
            "lost items, its statistics give",
        ),
        (lambda made: {"quality": replace(made.quality, items=199)}, "counts 199 items, its statistics hold 200"),
        (
            lambda made: {"quality": replace(made.quality, value=replace(made.quality.value, point=0.99))},
            "quality is 0.99, its statistics give",
        ),
        (lambda made: {"host_id": "0" * 64}, "was measured on host 00000000"),
        (lambda made: {"cell": cell("int8", "openvino")}, "is not the hash of the cell"),
        (lambda made: {"status": "crashed", "reason": None}, "has the status crashed and no reason"),
    ],
)
def test_a_figure_that_does_not_follow_is_named(tmp_path, change, says):
    made = true_record("int8")
    folder = true_run(tmp_path, replace(made, **change(made)))
    found = [problem for problem in verify_run(folder) if says in problem.what]
    assert [problem.file for problem in found] == [f"cells/{FAST}.json"], verify_run(folder)


def test_rounding_below_the_tolerance_is_no_problem(tmp_path):
    made = true_record("int8")
    nudged = replace(made.latency, mean_ns=made.latency.mean_ns * (1 + 1e-12))
    assert verify_run(true_run(tmp_path, replace(made, latency=nudged))) == []


def test_samples_that_were_changed_along_with_their_line_show_in_the_figures(tmp_path):
    folder = true_run(tmp_path)
    with RunStore(folder) as store:
        store.write_set(launch_set("g", 0, {ANCHOR: 3.0, FAST: 1.1}, anchor=ANCHOR, rounds=6))
    assert any("does not follow from its raw samples" in problem.what for problem in verify_run(folder))


@pytest.mark.parametrize(
    "name", ["raw/g-00000.json.gz", f"scores/{FAST}.npy", f"parts/{FAST}-memory.json", "bench.toml"]
)
def test_a_file_that_was_changed_removed_or_added_is_named(tmp_path, name):
    folder = true_run(tmp_path)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw + b" ")
    assert any(item.file == name and "changed or damaged" in item.what for item in verify_run(folder))
    (folder / name).unlink()
    assert any(item.file == name and "missing" in item.what for item in verify_run(folder))
    (folder / name).write_bytes(raw)
    (folder / "scores/added.npy").write_bytes(b"")
    assert [(item.file, item.what) for item in verify_run(folder)] == [("scores/added.npy", "is not in the manifest")]


def test_a_host_that_changed_under_the_run_is_named(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        store.finish(Host(host_id=HOST_ID[:-1] + "1", state={}))
    assert [problem.what for problem in verify_run(store.folder)] == ["the host changed while the run was measured"]


def test_facts_that_changed_under_the_run_are_named_with_both_values(tmp_path):
    with RunStore.create(tmp_path, info(host_facts={"governor": "powersave", "smt": "on"})) as store:
        store.finish(Host(facts={"governor": "performance", "smt": "on", "new": "1"}, state={}))
    (problem,) = verify_run(store.folder)
    assert problem.what == "the host's governor was powersave at the start and performance at the end"


def test_a_fresh_fingerprint_reads_the_host_anew(monkeypatch):
    from harness.measure import host

    before = host.fingerprint()
    monkeypatch.setattr(host, "_mitigations", lambda: "changed")
    assert host.fingerprint().facts == before.facts
    assert host.fingerprint(fresh=True).facts["mitigations"] == "changed"
    host.facts.cache_clear()


def test_the_head_of_the_chain_changes_with_any_line(tmp_path):
    from harness.store import manifest

    heads = set()
    for number in range(2):
        folder = true_run(tmp_path / str(number), replace(true_record("int8"), flags=(str(number),)))
        heads.add(manifest.read(folder).head)
    assert len(heads) == 2
