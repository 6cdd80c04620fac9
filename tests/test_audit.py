from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import codec
from harness.audit import DEMANDS, audit
from harness.audit.launches import Claims, breaches
from harness.cli.main import call
from harness.profiles import profile_named
from harness.stats import agreement_intervals, summarise
from harness.store import load_run
from harness.types import Options

REFERENCE = next((Path(__file__).parents[1] / "results/reference").glob("*/*/run.json")).parent


class Forgery:
    """A copy of a real run in which files can be changed as a forger would: with the chain and the summaries redone."""

    def __init__(self, folder, of):
        self.folder = folder
        shutil.copytree(of, folder)
        self.run = load_run(folder)

    def paths(self, kind):
        return sorted((self.folder / kind).iterdir())

    def read(self, path):
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)

    def write(self, path, value):
        raw = json.dumps(value).encode()
        path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)

    def change(self, path, function):
        value = self.read(path)
        function(value)
        self.write(path, value)

    def cell(self, method="int8", target="onnxruntime"):
        """The file of a record."""
        for record in self.run.records:
            if record.labels["method"] == method and record.cell.target.name == target:
                return self.folder / f"cells/{record.cell_id}.json"
        raise LookupError(f"the reference run has no {method} on {target}")

    def raw(self):
        """The first raw set of a target that runs models."""
        return next(path for path in self.paths("raw") if self.read(path)["launches"][0]["inner_loops"] == 1)

    def redo(self):
        """Summarise every latency again from the samples as they are now, and chain all files anew."""
        self.chain()
        run = load_run(self.folder)
        for record in run.records:
            sets = run.block_of(record)
            if record.latency is not None and sets:
                path = self.folder / f"cells/{record.cell_id}.json"
                found = summarise(record.cell_id, record.anchor, sets, profile_named(record.profile))
                changed = {"latency": codec.to_data(found)}
                if record.roofline is not None and record.roofline.percent is not None:
                    percent = record.roofline.percent * record.latency.p50_ns.point / found.p50_ns.point
                    changed["roofline"] = codec.to_data(replace(record.roofline, percent=percent))
                self.change(path, lambda value, changed=changed: value.update(changed))
        self.chain()

    def chain(self):
        names = ["run.json", "bench.toml"]
        names += [f"{kind}/{path.name}" for kind in ("cells", "parts", "raw", "scores") for path in self.paths(kind)]
        previous, lines = "0" * 64, []
        for seq, name in enumerate(names):
            digest = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            line = codec.dumps({"path": name, "prev_sha256": previous, "seq": seq, "sha256": digest})
            line = line.encode() if isinstance(line, str) else line
            lines.append(line)
            previous = hashlib.sha256(line).hexdigest()
        (self.folder / "manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def in_set(change):
    return lambda forgery: forgery.change(forgery.raw(), change)


def in_launch(change):
    return in_set(lambda value: change(value["launches"][0]))


def in_batch(change):
    return in_launch(lambda launch: change(launch["batches"][0]))


SURE = {
    "items": 9, "bins": 3, "probabilities": "softmax", "ece_debiased": 0.0,
    **{name: {"point": 0.1, "low": 0.0, "high": 0.2} for name in ("ece", "nll", "brier")},
}  # fmt: skip


def in_record(change, **which):
    return lambda forgery: forgery.change(forgery.cell(**which), change)


def in_run(change):
    return lambda forgery: forgery.change(forgery.folder / "run.json", change)


def in_part(name, change):
    def apply(forgery):
        cell_id = forgery.cell().stem
        forgery.change(forgery.folder / f"parts/{cell_id}-{name}.json", change)

    return apply


def later(value, seconds):
    from datetime import datetime, timedelta

    return (datetime.fromisoformat(value) + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def faster_by_hand(batch):
    batch["ns"] = [max(1, ns // 3) for ns in batch["ns"]]


def copied_samples(value):
    first, second = value["launches"][0]["batches"][:2]
    second["ns"], second["wall_ns"] = list(first["ns"]), first["wall_ns"]


def same_process(value):
    value["launches"][1]["pid"] = value["launches"][0]["pid"]


def same_turn(value):
    first, second = (launch["batches"][0] for launch in value["launches"][:2])
    second["round"], second["position"] = first["round"], first["position"]


def renamed(forgery):
    path = forgery.raw()
    group, _, index = path.name.removesuffix(".json.gz").rpartition("-")
    target = path.with_name(f"{group}-{int(index) + 777:05d}.json.gz")
    path.rename(target)
    old, new = path.name.removesuffix(".json.gz"), target.name.removesuffix(".json.gz")
    for cell in forgery.paths("cells"):
        forgery.change(cell, lambda v: v.update(sets=[new if name == old else name for name in v["sets"]]))


def two_at_once(forgery):
    paths = sorted(forgery.paths("raw"), key=lambda path: forgery.read(path)["started_utc"])
    start = forgery.read(paths[0])["started_utc"]
    forgery.change(paths[1], lambda value: value.update(started_utc=start))


def forgotten_cell(forgery):
    cell_id = forgery.cell().stem
    forgery.cell().unlink()
    for part in forgery.paths("parts"):
        if part.name.startswith(cell_id):
            part.unlink()
    (forgery.folder / f"scores/{cell_id}.npy").unlink()


def fewer_sets(value):
    value["sets"] = value["sets"][:-1]


def better_answers(forgery):
    path = forgery.folder / f"scores/{forgery.cell().stem}.npy"
    scores = np.load(path)
    scores[np.flatnonzero(scores[:, 0] > 0.5)[:5]] = 0
    np.save(path, scores)


def counted(forgery, change=lambda quality: None):
    """Give a cell the agreement of its items, with intervals, as runs of today have it, and then change its words."""
    path = forgery.cell()
    before = forgery.read(path)["quality"]
    hits = (np.arange(before["items"]) < round(before["fidelity"]["top1_agreement"] * before["items"]))[:, None]
    np.save(forgery.folder / f"scores/{path.stem}-agreement.npy", hits.astype("float64"))

    def write(value):
        value["quality"]["agreement"] = codec.to_data(agreement_intervals(hits))
        change(value["quality"])

    forgery.change(path, write)
    in_part("check", lambda part: write(part["value"]))(forgery)


def narrower(quality):
    quality["agreement"]["top1_agreement"]["low"] += 1e-6


def agreeing(quality):
    quality["fidelity"]["top1_agreement"] = 0.5


def no_placement(forgery):
    def empty(value):
        value["placements"], value["coverage"]["reason"] = [], ""
        value["coverage"].update(by_op=None, by_macs=None, by_time=None)

    forgery.change(forgery.cell(), empty)
    in_part("check", lambda part: empty(part["value"]))(forgery)


def painted_coverage(forgery):
    for change in (in_record(lambda v: v["coverage"].update(by_op=0.123)),
                   in_part("check", lambda p: p["value"]["coverage"].update(by_op=0.123))):  # fmt: skip
        change(forgery)


def fell_back(forgery):
    def move(placements):
        placements[0]["device"] = "elsewhere"

    in_record(lambda v: move(v["placements"]))(forgery)
    in_part("check", lambda p: move(p["value"]["placements"]))(forgery)


def impossible_work(forgery):
    """A thousand million times the work in the same time."""

    def grow(placements):
        for item in placements:
            item["macs"] = item["macs"] and item["macs"] * 10**9

    in_record(lambda v: grow(v["placements"]))(forgery)
    in_part("check", lambda p: grow(p["value"]["placements"]))(forgery)


def small_peak(forgery):
    def shrink(memory):
        memory["peak_bytes"] = memory["run_peak_bytes"] // 2

    in_record(lambda v: shrink(v["memory"]))(forgery)
    in_part("memory", lambda p: shrink(p["value"]["memory"]))(forgery)


def other_anchor(forgery):
    theirs = forgery.cell(method="int8", target="openvino")
    in_record(lambda value: value.update(anchor=theirs.stem))(forgery)


def not_the_baseline(forgery):
    theirs = forgery.cell(method="fp16", target="openvino")
    in_record(lambda value: value.update(anchor=theirs.stem), target="openvino")(forgery)


def otherwise_quiet(launch, **evidence):
    """Nothing disturbed the launch but what is given, and it is called ok."""
    for batch in launch["batches"]:
        batch.update(cpu_ns=batch["wall_ns"], involuntary_switches=0, major_faults=0)
    calm = {"hiccup_before": 0.0, "hiccup_after": 0.0, "steal": 0.0, "psi_cpu": 0.0, "throttled": 0, "major_faults": 0}
    rate = {"canary_before_gflops": 100.0, "canary_after_gflops": 100.0, "canary_level": 1.0}
    launch["noise"].update(verdict="ok", involuntary_switches_per_s=0.0, **calm, **rate)
    launch["noise"].update(evidence)


WRONG = {
    "oracle": "torch eager", "items": 450, "precision": "float32", "due_db": 60.0, "sqnr_db": 20.0,
    "outputs": {"logits": {"sqnr_db": 20.0, "worst_item_db": 10.0, "worst_item": 3, "first_item": 0}},
}  # fmt: skip
MUTATIONS = {
    "a set under another number": (renamed, {"set-name"}),
    "a launch of a stranger": (in_launch(lambda v: v.update(cell_id="0123456789abcdef")), {"set-members"}),
    "an anchor that is no member": (in_set(lambda v: v.update(anchor="0123456789abcdef")), {"set-members"}),
    "a launch from another set": (in_launch(lambda v: v.update(set_index=4321)), {"set-index"}),
    "a set that lasted too short": (in_set(lambda v: v.update(seconds=0.01)), {"set-seconds"}),
    "one process for two launches": (in_set(same_process), {"fresh-process"}),
    "two members at once": (in_set(same_turn), {"turns"}),
    "an iteration that took no time": (in_batch(lambda v: v["ns"].__setitem__(0, 0)), {"samples"}),
    "a batch without samples": (in_batch(lambda v: v.update(ns=[])), {"samples"}),
    "samples divided by three": (in_batch(faster_by_hand), {"wall-time"}),
    "samples longer than their batch": (in_batch(lambda v: v.update(wall_ns=v["wall_ns"] // 2)), {"wall-time"}),
    "more CPU time than there is": (in_batch(lambda v: v.update(cpu_ns=v["wall_ns"] * 500)), {"cpu-time"}),
    "a batch copied": (in_set(copied_samples), {"repeated-samples"}),
    "a constant batch": (
        in_batch(lambda v: v.update(ns=[v["wall_ns"] // len(v["ns"])] * len(v["ns"]))),
        {"repeated-samples"},
    ),
    "no warm-up": (in_launch(lambda v: v.update(warmup_iterations=1, warmup_ns=1000)), {"warm-up"}),
    "rounds left out": (in_launch(lambda v: v.update(batches=v["batches"][:3])), {"rounds"}),
    "short batches": (in_batch(lambda v: v.update(ns=v["ns"][:2], wall_ns=sum(v["ns"][:2]) + 5)), {"batch-size"}),
    "other threads than asked for": (in_launch(lambda v: v.update(threads_effective="7")), {"threads"}),
    "noise called quiet": (
        in_launch(lambda v: v["noise"].update(verdict="ok", hiccup_before=0.5)),
        {"noise-verdict"},
    ),
    "memory pressure called quiet": (
        in_launch(lambda v: otherwise_quiet(v, psi_memory=0.5)),
        {"noise-verdict"},
    ),
    "a CPU that was slowed for its heat called quiet": (
        in_launch(lambda v: otherwise_quiet(v, thermal=2)),
        {"noise-verdict"},
    ),
    "time that others had called ours": (
        in_launch(
            lambda v: (
                v["noise"].update(verdict="ok"),
                [batch.update(cpu_ns=batch["wall_ns"] // 2) for batch in v["batches"]],
            )
        ),
        {"noise-verdict"},
    ),
    "left out without a reason": (in_launch(lambda v: v.update(discarded=" ")), {"discard-reason"}),
    "a load that took no time": (in_launch(lambda v: v.update(load_ns=0)), {"start-times"}),
    "two sets at once": (two_at_once, {"overlap"}),
    "a set from before the run": (
        in_run(lambda v: v.update(started_utc=later(v["started_utc"], 100_000))),
        {"outside-run"},
    ),
    "a run that ended before its records": (
        in_run(lambda v: v.update(finished_utc=later(v["started_utc"], 1))),
        {"outside-run"},
    ),
    "a loser that was dropped": (forgotten_cell, {"missing-record"}),
    "sets left out of a record": (in_record(fewer_sets), {"sets"}),
    "a better profile claimed": (in_record(lambda v: v.update(profile="publish")), {"profile", "sets"}),
    "another label": (in_record(lambda v: v["labels"].update(method="distillation+int8")), {"label"}),
    "another seed": (in_record(lambda v: v["lineage"][0].update(seed=99)), {"seed"}),
    "an anchor of another target": (other_anchor, {"anchor"}),
    "an anchor that is not the baseline": (not_the_baseline, {"anchor"}),
    "an anchor that is not there": (in_record(lambda v: v.update(anchor="0123456789abcdef")), {"anchor"}),
    "an anchor of another precision": (in_record(lambda v: v.update(anchor_precision="int8")), {"anchor-precision"}),
    "memory that nobody read": (in_record(lambda v: v["memory"].update(steady_bytes=1000)), {"part"}),
    "memory of another artifact": (in_part("memory", lambda v: v.update(inputs_sha256="0" * 64)), {"inputs"}),
    "outputs of another artifact": (in_part("check", lambda v: v.update(inputs_sha256="0" * 64)), {"inputs"}),
    "ok without memory": (in_record(lambda v: v.update(memory=None)), {"incomplete"}),
    "stored smaller without saying how": (
        in_record(lambda v: v["artifact"].update(stored_bytes=10, stored_as="")),
        {"artifact"},
    ),
    "wrong answers called right": (in_record(lambda v: v.update(oracle=WRONG)), {"answers", "part"}),
    "an artifact without a hash": (in_record(lambda v: v["artifact"].update(sha256="none")), {"artifact"}),
    "a peak below its phases": (small_peak, {"memory"}),
    "faster than any CPU computes": (impossible_work, {"floor"}),
    "a nameplate as a measurement": (
        in_record(lambda v: v.update(energy={"level": "E1", "source": "TDP of 65 W"})),
        {"energy"},
    ),
    "a robustness that nobody measured": (
        in_record(
            lambda v: v.update(
                robustness={"items": 9, "corrupted": {"fog:1": 0.9}, "value": {"point": 0.9, "low": 0.8, "high": 1.0}}
            )
        ),
        {"robustness"},
    ),
    "a confidence that nobody measured": (
        in_record(lambda v: v.update(confidence=SURE)),
        {"confidence"},
    ),
    "an agreement that nobody counted": (
        in_record(lambda v: v["quality"].update(agreement={"top1_agreement": {"point": 0.9, "low": 0.8, "high": 1.0}})),
        {"agreement"},
    ),
    "a narrower interval of the agreement": (lambda forgery: counted(forgery, narrower), {"agreement"}),
    "another agreement than was counted": (lambda forgery: counted(forgery, agreeing), {"agreement"}),
    "layers that nobody compared": (in_record(lambda v: v.update(layers={"items": 9, "unmatched": 1})), {"part"}),
    "nothing shown of what ran": (no_placement, {"no-proof"}),
    "painted coverage": (painted_coverage, {"coverage"}),
    "a fallback without its flag": (fell_back, {"flag"}),
    "noise without its flag": (in_record(lambda v: v.update(flags=[])), {"flag"}),
    "answers changed": (better_answers, {"quality"}),
    "a narrower interval": (
        in_record(lambda v: v["quality"]["value"].update(low=v["quality"]["value"]["point"])),
        {"quality"},
    ),
    "a p-value changed": (in_record(lambda v: v["quality"].update(p_value=0.5)), {"quality"}),
    "flips left out": (
        in_record(lambda v: v["quality"].update(flips=0.0, lost=0, gained=0), method="dynamic-int8"),
        {"quality"},
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The reference run with two of its targets, so that dozens of forgeries take seconds."""
    small = Forgery(tmp_path_factory.mktemp("base") / "run", REFERENCE)
    kept = {item.cell_id for item in small.run.records if item.cell.target.name in {"onnxruntime", "openvino"}}
    for kind in ("cells", "parts", "scores"):
        for path in small.paths(kind):
            if not path.name.startswith(tuple(kept)):
                path.unlink()
    for path in small.paths("raw"):
        if not kept >= set((found := small.read(path))["members"]) or found["purpose"] == "link":
            path.unlink()
    small.chain()
    return small.folder


@pytest.fixture
def forgery(tmp_path, base):
    return Forgery(tmp_path / "run", base)


def demands(folder):
    return {problem.demand for problem in audit(folder)}


def test_the_reference_run_holds_every_demand():
    assert audit(REFERENCE) == []


def test_a_run_that_was_only_copied_and_chained_anew_holds_too(forgery):
    forgery.redo()
    assert audit(forgery.folder) == []


def test_agreement_that_follows_from_its_items_holds(forgery):
    counted(forgery)
    forgery.redo()
    assert audit(forgery.folder) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_forged_run_is_rejected_for_its_own_reason(forgery, name):
    forge, reasons = MUTATIONS[name]
    forge(forgery)
    forgery.redo()
    found = demands(forgery.folder)
    assert reasons <= found, audit(forgery.folder)
    assert found - reasons <= FOLLOWING.get(name, set()), audit(forgery.folder)


FOLLOWING = {  # what else such a change cannot help but break
    "a launch of a stranger": {"integrity", "sets"},
    "an anchor that is no member": {"integrity"},
    "a launch that took no time": {"integrity"},
    "a batch without samples": {"integrity", "wall-time"},
    "a batch copied": {"wall-time", "cpu-time"},
    "an iteration that took no time": {"wall-time"},
    "short batches": {"cpu-time"},
    "samples longer than their batch": {"cpu-time"},
    "sets left out of a record": {"part", "flag"},
    "an anchor of another target": {"inputs", "quality", "confidence", "anchor-precision", "integrity"},
    "an anchor that is not the baseline": {"inputs", "quality", "confidence", "anchor-precision", "integrity"},
    "an anchor that is not there": {"inputs", "quality", "confidence", "integrity"},
    "nothing shown of what ran": {"floor"},
    "memory that nobody read": {"memory"},
    "ok without memory": {"part"},
    "answers changed": {"integrity", "inputs"},
    "a narrower interval": {"part"},
    "a confidence that nobody measured": {"part"},
    "an agreement that nobody counted": {"part"},
    "a p-value changed": {"part"},
    "flips left out": {"part", "integrity"},
    "a loser that was dropped": {"integrity"},
    "a better profile claimed": {"integrity", "flag"},
    "rounds left out": {"integrity"},
    "two sets at once": {"outside-run"},
    "left out without a reason": {"flag"},
}


def test_at_least_thirty_forgeries_and_most_demands_are_tried():
    tried = {reason for _, reasons in MUTATIONS.values() for reason in reasons}
    assert len(MUTATIONS) >= 30
    assert set(DEMANDS) - tried == {"integrity", "affinity"}


def test_fewer_cpus_than_threads_break_a_demand(base):
    for name, item in load_run(base).sets.items():
        claims = Claims(profile_named("quick"), {cell_id: Options(threads=2) for cell_id in item.members}, cores=4)
        assert {code for code, _ in breaches(name, item, claims)} == {"affinity", "threads"}


def test_verify_names_the_demand_and_exits_4(forgery, capsys):
    MUTATIONS["a peak below its phases"][0](forgery)
    forgery.redo()
    assert call(["verify", str(forgery.folder)]) == 4
    assert "[memory]" in capsys.readouterr().out


def test_verify_lists_its_demands(capsys):
    assert call(["verify", "--demands", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(DEMANDS)


@pytest.mark.parametrize(("call_ns", "held"), [(2_300, True), (2_300_000, False)])
def test_microseconds_may_pass_between_calls_but_not_a_tenth_of_the_time(base, call_ns, held):
    """A clock is read around each call: 0.3 us beside calls of 2.3 us is the loop, an eighth of long calls is not."""
    name, item = next(iter(load_run(base).sets.items()))
    wall_ns = sum(item.launches[0].batches[0].ns)
    calls = wall_ns * 100 // (113 * call_ns) + 1
    wall_ns = calls * call_ns * 113 // 100
    batch = replace(item.launches[0].batches[0], ns=(call_ns,) * calls, wall_ns=wall_ns, cpu_ns=wall_ns)
    launches = (replace(item.launches[0], batches=(batch,)), *item.launches[1:])
    claims = Claims(profile_named("quick"), {cell_id: Options() for cell_id in item.members}, cores=4)
    found = {code for code, _ in breaches(name, replace(item, launches=launches), claims)}
    assert ("wall-time" not in found) == held


def test_time_that_others_had_of_the_cpu_is_no_breach(base):
    """A batch whose process was stopped between two iterations: the CPU's clock stood still meanwhile."""
    name, item = next(iter(load_run(base).sets.items()))
    batch = item.launches[0].batches[0]
    stopped = replace(batch, wall_ns=4 * batch.wall_ns, cpu_ns=batch.wall_ns)
    claims = Claims(profile_named("quick"), {cell_id: Options() for cell_id in item.members}, cores=4)
    for cpu_ns, held in ((batch.wall_ns, True), (stopped.wall_ns, False)):
        launches = (replace(item.launches[0], batches=(replace(stopped, cpu_ns=cpu_ns),)), *item.launches[1:])
        found = {code for code, _ in breaches(name, replace(item, launches=launches), claims)}
        assert ("wall-time" not in found) == held
