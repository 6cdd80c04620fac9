from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records

from harness.bundle import find_cell, judge, markdown, open_bundle, write_bundle
from harness.bundle.judge import TOLERANCE, _place
from harness.bundle.redact import redact, shorten
from harness.bundle.reproduce import judge_run, reproduce
from harness.bundle.write import request_of
from harness.cli.main import call
from harness.config import parse_config
from harness.errors import PlanError, RecordError
from harness.plan import Request
from harness.plugins import load_registry
from harness.store import load_run, manifest
from harness.types import Interval

ROOT = Path(__file__).parents[1]
REFERENCE = next((ROOT / "results" / "reference").glob("*/2*"))
CELL = "int8@onnxruntime"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "cell.hev"
    write_bundle(REFERENCE, CELL, path)
    return path


@pytest.fixture
def opened(bundle, tmp_path):
    return open_bundle(bundle, tmp_path / "opened")


# what is in it


def test_equal_input_gives_equal_bytes(bundle, tmp_path):
    assert call(["bundle", str(REFERENCE), "fe99ca4c", "-o", str(tmp_path / "again.hev")]) == 0
    assert (tmp_path / "again.hev").read_bytes() == bundle.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "again.hev"]


def test_it_holds_the_evidence_of_the_cell_and_its_anchor_and_of_no_other(bundle, opened):
    source = load_run(REFERENCE)
    record = find_cell(source, CELL)
    assert set(opened.run.by_cell) == {record.cell_id, record.anchor}
    assert opened.record == record
    assert {*record.sets, *source.by_cell[record.anchor].sets} == set(opened.run.sets)
    np.testing.assert_array_equal(opened.run.scores(record.cell_id), source.scores(record.cell_id))
    assert opened.run.info.packages == source.info.packages
    with zipfile.ZipFile(bundle) as archive:
        assert archive.read("chain.jsonl") == (REFERENCE / "manifest.jsonl").read_bytes()
        page = archive.read("report.md").decode()
        html = archive.read("report.html").decode()
        request = parse_config(archive.read("cell.toml").decode())
    assert record.artifact.sha256 in page
    assert "harness bench -c run/bench.toml" in html
    assert len(re.findall(r'<article class="cell"', html)) == 2
    assert opened.info.command in page
    assert (request.methods, request.targets, request.python) == (("int8",), ("onnxruntime",), {})


def test_without_the_report_extra_there_is_no_html_page_and_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    out = tmp_path / "cell.hev"
    assert call(["bundle", str(REFERENCE), CELL, "-o", str(out)]) == 0
    assert "compression-harness[report]" in capsys.readouterr().err
    assert "report.html" not in zipfile.ZipFile(out).namelist()
    assert not open_bundle(out, tmp_path / "opened").info.with_page


def test_the_command_plans_just_this_cell_and_its_anchor(opened):
    from harness.plan import make_plan

    planned = {cell.cell_id for cell in make_plan(opened.info.request, load_registry(), {}, 1).cells}
    assert planned == {opened.record.cell_id, opened.record.anchor}


def test_what_a_meter_of_the_machine_read_is_not_asked_for_elsewhere():
    record = records.record()
    info = records.info(request=Request(workloads=(records.WORKLOAD,), energy=True, meter="/home/alice/watts.csv"))
    own = request_of(record, info)
    assert (own.energy, own.meter) == (False, "")
    counted = request_of(record, replace(info, request=replace(info.request, meter="")))
    assert counted.energy


def test_an_older_bundle_asks_for_no_meter_of_the_machine_that_it_comes_from(opened, tmp_path, monkeypatch):
    old = replace(opened, info=replace(opened.info, request=replace(opened.info.request, energy=True, meter="/m.csv")))
    asked = []

    def run(request, **_more):
        asked.append(request)
        raise PlanError("far enough")

    monkeypatch.setattr(sys.modules["harness.bench"], "run", run)
    with pytest.raises(PlanError, match="far enough"):
        reproduce(old, registry=load_registry(), out=tmp_path, ui=None)
    assert [(request.meter, request.energy) for request in asked] == [("", False)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("nope", "no cell of"),
        ("", "no cell of"),
        ("f", "cells of"),
        ("int8@tensorrt", "is unavailable, so it has no figures to prove"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused(cell, text, tmp_path, capsys):
    assert call(["bundle", str(REFERENCE), cell, "-o", str(tmp_path / "x.hev")]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_paths_of_the_machine_stay_out():
    info = records.info(
        command=("/opt/venv/bin/harness", "bench", "--out=/home/alice/results", "--python", "x=/u/v/python")
    )
    asked = replace(info.request, python={"tflite": "/home/alice/tf/bin/python"}, energy=True)
    info = replace(info, request=replace(asked, meter="/home/alice/watts.csv"))
    kept = redact(info)
    assert "alice" not in str(kept)
    assert kept.command == ("…/harness", "bench", "--out=…/results", "--python", "x=…/python")
    assert kept.request.python == {"tflite": "…/python"}
    assert kept.request.meter == "…/watts.csv"
    assert kept.host_facts == info.host_facts
    assert (
        shorten("channel-pruning:ratio=0.3,0.5+int8 results/a 1/2")
        == "channel-pruning:ratio=0.3,0.5+int8 results/a 1/2"
    )
    assert redact(kept) == kept


def test_what_was_taken_out_is_told_and_the_rest_still_verifies(tmp_path):
    source = _copy(tmp_path, command=("/home/alice/bin/harness", "bench", "--targets", "all"))
    info = write_bundle(source, CELL, tmp_path / "b.hev")
    assert info.redacted == ("bench.toml", "run.json")
    assert b"/alice" not in (tmp_path / "b.hev").read_bytes()
    assert open_bundle(tmp_path / "b.hev", tmp_path / "o").run.info.command[0] == "…/harness"


def test_further_statistics_per_item_are_in_it(tmp_path):
    run = load_run(REFERENCE)
    names = [path.stem for path in (REFERENCE / "scores").glob(f"{find_cell(run, CELL).cell_id}-*.npy")]
    assert names
    write_bundle(REFERENCE, CELL, tmp_path / "b.hev")
    opened = open_bundle(tmp_path / "b.hev", tmp_path / "o").run
    for name in names:
        np.testing.assert_array_equal(opened.scores(name), run.scores(name))


def _copy(tmp_path, **changes):
    """The reference run with other words about itself, its chain continued."""
    import shutil

    from harness.store import files

    folder = tmp_path / "host" / REFERENCE.name
    shutil.copytree(REFERENCE, folder)
    raw = files.encode(replace(load_run(folder).info, **changes), "run.json")
    (folder / "run.json").write_bytes(raw)
    manifest.Writer(folder).append("run.json", manifest.digest(raw))
    return folder


def test_damaged_evidence_is_not_bundled(tmp_path, capsys):
    source = _copy(tmp_path)
    file = source / "scores" / "fe99ca4c714e2b64.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert call(["bundle", str(source), CELL, "-o", str(tmp_path / "b.hev")]) == 4
    assert "fe99ca4c714e2b64.npy" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.hev"))


# damage


def rewrite(path, out, change):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = change(members) or zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return out


def seal(members, *, chain=False):
    """Make the lists of hashes fit: of the file, and with ``chain`` of the run too, as a forger would."""
    if chain:
        previous, lines = manifest.START, []
        for seq, name in enumerate(sorted(name for name in members if name.startswith("run/"))):
            if name != "run/manifest.jsonl":
                entry = manifest.Entry(seq, name[4:], hashlib.sha256(members[name]).hexdigest(), previous)
                lines.append(entry.line)
                previous = manifest.digest(entry.line)
        lines = [json.loads(line) for line in lines]
        previous, raw = manifest.START, b""
        for seq, line in enumerate(lines):
            entry = manifest.Entry(seq, line["path"], line["sha256"], previous)
            raw += entry.line + b"\n"
            previous = manifest.digest(entry.line)
        members["run/manifest.jsonl"] = members["chain.jsonl"] = raw
        info = json.loads(members["bundle.json"])
        members["bundle.json"] = json.dumps({**info, "manifest_head": previous}).encode()
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in members.items() if name != "manifest.json"}
    members["manifest.json"] = json.dumps(hashes).encode()


RECORD = "run/cells/fe99ca4c714e2b64.json"


def flipped(members):
    name = next(name for name in members if name.startswith("run/raw/"))
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def slipped(members):
    members["run/../../evil"] = b"x"
    seal(members)


def absolute(members):
    members["/tmp/evil"] = b"x"
    seal(members)


def newer(members):
    members["bundle.json"] = members["bundle.json"].replace(b'"schema": 1', b'"schema": 2')
    seal(members)


def faster(members):
    """A record with half its time; every hash is made to fit."""
    record = json.loads(members[RECORD])
    record["latency"]["p50_ns"]["point"] /= 2
    members[RECORD] = json.dumps(record).encode()
    seal(members, chain=True)


def other_chain(members):
    record = json.loads(members[RECORD])
    record["flags"] = []
    members[RECORD] = json.dumps(record).encode()
    seal(members)


def thinned(members):
    name = next(name for name in members if name.startswith("run/raw/"))
    item = json.loads(gzip.decompress(members[name]))
    item["launches"] = item["launches"][:1]
    members[name] = gzip.compress(json.dumps(item).encode(), mtime=0)
    seal(members, chain=True)


def relabelled(members):
    info = json.loads(members["bundle.json"])
    members["bundle.json"] = json.dumps({**info, "artifact_sha256": "0" * 64}).encode()
    seal(members)


def rerouted(members):
    info = json.loads(members["bundle.json"])
    info["request"]["workloads"] = ["factory:target=os:abort"]
    members["bundle.json"] = json.dumps(info).encode()
    seal(members)


def silent(members):
    """A flag is painted over, and the bundle does not say that its evidence breaks a demand."""
    name = "run/cells/fe99ca4c714e2b64.json"
    members[name] = json.dumps(json.loads(members[name]) | {"flags": []}).encode()
    info = json.loads(members["bundle.json"])
    members["bundle.json"] = json.dumps({**info, "breaks": []}).encode()
    seal(members, chain=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (flipped, "run/raw/"),
        (slipped, "leads out"),
        (absolute, "leads out"),
        (newer, "schema 2"),
        (faster, "cells/fe99ca4c714e2b64.json: latency does not follow"),
        (other_chain, "cells/fe99ca4c714e2b64.json"),
        (thinned, "latency does not follow"),
        (relabelled, "another artifact"),
        (rerouted, "not that of the cell"),
        (silent, "lacks the flag"),
        (lambda members: zipfile.ZIP_DEFLATED, "compressed"),
        (lambda members: members.pop("run/run.json") and None, "manifest lists"),
        (lambda members: members.pop("bundle.json") and None, "not a bundle"),
        (lambda members: members.update({"extra": b"x"}), "manifest lists"),
    ],
)
def test_a_damaged_or_hostile_bundle_is_refused_by_name(bundle, tmp_path, capsys, change, text):
    bad = rewrite(bundle, tmp_path / "bad.hev", change)
    with pytest.raises(RecordError, match=text):
        open_bundle(bad, tmp_path / "in" / "opened")
    assert call(["reproduce", str(bad), "--verify-only"]) == 4
    assert "bad.hev" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "in" / "evil").exists()


@pytest.mark.parametrize("keep", [0, 100, 30_000, -100])
def test_a_torn_bundle_is_refused(bundle, tmp_path, keep):
    torn = tmp_path / "torn.hev"
    torn.write_bytes(bundle.read_bytes()[:keep])
    assert call(["reproduce", str(torn)]) == 4


# whether it reproduces


def again(opened, *, scale=1.0, host=None, noise=None, drift=1.0, **changes):
    """The bundle's own run as if measured a day later; ``scale`` slows the cell, ``drift`` the machine."""

    def moved(found, factor):
        ends = [end and end * factor for end in (found.low, found.high)]
        return replace(found, point=found.point * factor, low=ends[0], high=ends[1])

    run, made = opened.run, []
    for record in run.records:
        own = scale if record.cell_id == opened.info.cell_id else 1.0
        latency = record.latency
        latency = replace(
            latency,
            p50_ns=moved(latency.p50_ns, own * drift),
            ratio=latency.ratio and moved(latency.ratio, own),
            ratio_p10=latency.ratio_p10 and moved(latency.ratio_p10, own),
            noise=noise or latency.noise,
        )
        record = replace(record, latency=latency)
        made.append(replace(record, **changes) if record.cell_id == opened.info.cell_id else record)
    info = replace(
        run.info, run_id="later", started_utc="2026-12-01T00:00:00+00:00", host_name=host or run.info.host_name
    )
    return replace(run, records=tuple(made), info=info)


def outcomes(found):
    return {check.name: check.outcome for check in found.checks}


def test_the_same_again_reproduces(opened):
    found = judge(opened, again(opened))
    assert (found.verdict, found.basis, found.same_host) == ("reproduced", "same artifact", True)
    assert outcomes(found)["quality"] == outcomes(found)["speed-up"] == "same"


@pytest.mark.parametrize(("scale", "verdict"), [(1.02, "reproduced"), (0.98, "reproduced"), (1.6, "not reproduced")])
def test_a_slow_down_beyond_five_percent_of_the_interval_does_not(opened, scale, verdict):
    found = judge(opened, again(opened, scale=scale))
    assert found.verdict == verdict
    assert ("outside" in found.reason) == (verdict == "not reproduced")


def test_another_machine_is_judged_by_the_speed_up_alone(opened):
    found = judge(opened, again(opened, host="other box", drift=3.0))
    assert (found.verdict, found.same_host) == ("reproduced", False)
    assert outcomes(found)["latency p50"] == "not compared"
    assert any(note.startswith("machine:") for note in found.notes)


def test_a_machine_that_moved_as_a_whole_is_no_failure(opened):
    calm = replace(opened, record=replace(opened.record, latency=replace(opened.record.latency, noise="ok")))
    found = judge(calm, again(opened, drift=3.0, noise="ok"))
    check = {item.name: item for item in found.checks}["latency p50"]
    assert check.outcome == "not compared"
    assert "its anchor by +200%" in check.reason
    assert found.verdict == "reproduced"


def test_undecided_is_never_success(opened, monkeypatch):
    wide = replace(opened.record.latency.ratio, low=0.2, high=1.4)
    latency = replace(opened.record.latency, ratio=wide)
    found = judge(opened, again(opened, latency=latency))
    assert found.verdict == "undecided"
    assert "also holds 1" in found.reason
    torn = replace(opened.record.latency, noise="noisy", ratio_p10=replace(wide, point=wide.point * 1.5))
    assert judge(opened, again(opened, latency=torn)).verdict == "undecided"
    none = replace(opened.record.latency, ratio=replace(wide, low=None, high=None))
    assert judge(opened, again(opened, latency=none)).verdict == "undecided"


@pytest.mark.parametrize(
    ("status", "verdict"), [("crashed", "not reproduced"), ("oom", "not reproduced"), ("unavailable", "undecided")]
)
def test_a_cell_without_figures_says_why(opened, status, verdict):
    found = judge(opened, again(opened, status=status, reason="no such kernel"))
    assert found.verdict == verdict
    assert "no such kernel" in found.reason


def test_other_bytes_are_told(opened):
    other = replace(opened.record.artifact, sha256="1" * 64)
    assert judge(opened, again(opened, artifact=other)).basis == "same model"
    found = judge(opened, again(opened, artifact=other, model_sha256="2" * 64))
    assert (found.basis, outcomes(found)["artifact"]) == ("same recipe", "differs")
    assert "another model" in markdown(found)


def test_quality_is_paired_by_item(opened, tmp_path):
    import shutil

    run = again(opened)
    shutil.copytree(opened.run.path, tmp_path / "worse")
    file = tmp_path / "worse" / "scores" / f"{opened.info.cell_id}.npy"
    scores = np.load(file)
    scores[:60] = 0
    np.save(file, scores)
    value = replace(opened.record.quality.value, point=float((scores > 0).mean()))
    worse = tuple(
        replace(item, quality=replace(item.quality, value=value)) if item.cell_id == opened.info.cell_id else item
        for item in run.records
    )
    found = judge(opened, replace(run, path=tmp_path / "worse", records=worse))
    assert outcomes(found)["quality"] == "differs"
    assert found.verdict == "not reproduced"


@pytest.mark.parametrize(
    ("here", "outcome"),
    [
        ((1.0, 0.95, 1.05), "same"),
        ((1.1 * (1 + TOLERANCE) - 1e-9, 1.1, 1.3), "same"),
        ((1.2, 1.1, 1.3), "undecided"),
        ((1.3, 1.1 * (1 + TOLERANCE) + 1e-9, 1.4), "differs"),
        ((0.8, 0.7, 0.9 / (1 + TOLERANCE) - 1e-9), "differs"),
        ((1.0, None, None), "undecided"),
    ],
)
def test_where_a_figure_lies_against_the_interval_of_the_bundle(here, outcome):
    assert _place(Interval(1.0, 0.9, 1.1), Interval(*here))[0] == outcome


def test_the_run_that_the_bundle_came_from_is_no_reproduction(bundle, opened, capsys):
    with pytest.raises(PlanError, match="was taken from"):
        judge_run(opened, load_run(REFERENCE), load_registry())
    assert call(["reproduce", str(bundle), "--run", str(REFERENCE)]) == 2
    assert "was taken from" in capsys.readouterr().err


def test_the_command_judges_a_run_and_sets_its_exit_code(bundle, tmp_path, capsys):
    other = _copy(tmp_path, run_id="later", started_utc="2026-12-01T00:00:00+00:00")
    page = tmp_path / "found.md"
    assert call(["reproduce", str(bundle), "--run", str(other), "--json", "-o", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["same_host"]) == ("reproduced", True)
    assert page.read_text().startswith("## digits-resnet8 int8 onnxruntime: reproduced")
    (other / "cells" / "fe99ca4c714e2b64.json").write_bytes(b"{}")
    assert call(["reproduce", str(bundle), "--run", str(other)]) == 4


def test_hostile_names_are_harmless_in_markdown(opened):
    labels = {"workload": "<script>alert(1)</script>", "method": "a|b\n# x", "target": "\u202eevil"}
    text = markdown(replace(judge(opened, again(opened)), labels=labels))
    assert "<script>" not in text
    assert "\n# x" not in text
    assert "\u202e" not in text


@pytest.mark.slow
def test_a_real_cell_is_bundled_and_measured_again(tmp_path):
    def harness(*args):
        environment = {**os.environ, "HARNESS_CACHE": str(tmp_path / "cache")}
        return subprocess.run(
            [sys.executable, "-m", "harness", *map(str, args)], capture_output=True, text=True, cwd=tmp_path,
            env=environment, timeout=500, check=False,
        )  # fmt: skip

    made = harness("bench", "--workloads", "tiny-dense", "--methods", "int8", "--targets", "onnxruntime")
    assert made.returncode == 0, made.stderr
    packed = harness("bundle", "results", CELL, "-o", "cell.hev", "--with-artifacts")
    assert packed.returncode == 0, packed.stderr
    assert str(tmp_path).encode() not in (tmp_path / "cell.hev").read_bytes()

    def swapped(members):
        """The artifacts of another model, with every hash of the pack and the bundle made to fit."""
        (tmp_path / "cell.hpk").write_bytes(members["artifacts/cell.hpk"])

        def change(inner):
            name = next(name for name in inner if name.startswith("artifacts/"))
            inner[name] = inner[name][:-1] + b"x"
            seal(inner)

        members["artifacts/cell.hpk"] = rewrite(tmp_path / "cell.hpk", tmp_path / "other.hpk", change).read_bytes()
        seal(members)

    rewrite(tmp_path / "cell.hev", tmp_path / "bad.hev", swapped)
    refused = harness("reproduce", "bad.hev")
    assert refused.returncode == 4
    assert "is not the artifact that the record of" in refused.stderr
    done = harness("reproduce", "cell.hev", "--out", "again", "--json", "-o", "found.md")
    found = json.loads(done.stdout)
    assert found["basis"] == "same artifact"
    checks = {check["name"]: check["outcome"] for check in found["checks"]}
    assert checks["quality"] == "same"
    assert checks["speed-up"] != "not compared"
    assert done.returncode == (0 if found["verdict"] == "reproduced" else 1)
    assert found["verdict"] in (tmp_path / "found.md").read_text()
