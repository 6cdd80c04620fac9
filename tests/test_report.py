from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from records import board_records, failed, info, latency, launch_set, quality, record, run_of

from harness.cli.main import call
from harness.errors import MissingDependency
from harness.leaderboard import parse_gate, table
from harness.leaderboard.digits import DASH
from harness.report import report
from harness.report.answers import answers
from harness.report.beyond import beyond_page
from harness.report.cells import cell_page
from harness.report.plots import safe_json, samples
from harness.store import find_runs, load_run
from harness.types import Placement, StepRecord

ROOT = Path(__file__).parents[1]
REFERENCE = find_runs(ROOT / "results" / "reference")[-1]
CELLS = sum(item.status == "ok" and item.cell.target.name != "null" for item in load_run(REFERENCE).records)
HOSTILE_NAME = "<script>window.harm=1</script>\n=cmd()\u202e<img src=x onerror='window.harm=2'><a href=\"http://evil.example\">x</a>"


def hostile_run():
    """A run in which everything that a plugin or a file can name is hostile."""
    bad = HOSTILE_NAME
    anchor = record()
    step = StepRecord("compress", bad, {bad: bad}, 0, 1.0, bad, bad, {"parameters": 1.0, bad: 2.0})
    made = record(
        "int8",
        labels={"workload": anchor.labels["workload"], "method": bad, "target": bad},
        flags=(bad, "noisy"),
        lineage=(step,),
        placements=(Placement(bad, bad, bad, bad, bad, 10, 0.5), Placement("Conv", "c", "k", "cpu", "int8", 10, 0.5)),
        effective={bad: bad},
        provenance={"runtime": bad},
    )
    made = replace(
        made,
        artifact=replace(made.artifact, how=bad, realised=bad, stored_as=bad),
        quality=replace(made.quality, metric=bad, unit=bad),
    )
    members = {anchor.cell_id: 3.0, made.cell_id: 1.0}
    sets = tuple(launch_set("aa" * 8, number, members, anchor=anchor.cell_id) for number in range(6))
    names = tuple(f"{item.group}-{item.index:05d}" for item in sets)
    lost = replace(
        failed("fp16", "tflite", "failed", "lower", bad, bad),
        labels={"workload": anchor.labels["workload"], "method": bad, "target": bad},
    )
    about = {
        "host_facts": {"cpu_model_name": bad, bad: bad},
        "command": (bad,),
        "packages": {bad: bad},
        "host_name": bad,
        "run_id": bad,
    }
    return run_of((replace(anchor, sets=names), replace(made, sets=names), lost), sets, **about)


class Page(HTMLParser):
    """What a browser would make of the markup: elements with their attributes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(raw.decode())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def reference():
    return report([load_run(REFERENCE)])


def test_the_file_stands_alone(reference):
    page = Page(reference)
    tags = [tag for tag, _attrs in page.elements]
    assert tags.count("script") == 3
    assert not {"img", "iframe", "object", "embed", "base"} & set(tags)
    for tag, attrs in page.elements:
        assert "src" not in attrs, tag
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert attrs.get("href", "#").startswith(("#", "data:,")), (tag, attrs)
    policy = next(attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert len(reference) < 12 << 20


def test_every_ok_cell_has_its_row_and_its_page(reference):
    run = load_run(REFERENCE)
    page = Page(reference)
    okay = [item for item in run.records if item.status == "ok" and item.cell.target.name != "null"]
    articles = {attrs["id"] for tag, attrs in page.elements if tag == "article"}
    rows = {attrs["data-key"] for tag, attrs in page.elements if tag == "tr" and "data-key" in attrs}
    assert len(okay) == len(articles)
    assert articles == rows
    links = {attrs["href"].removeprefix("#") for tag, attrs in page.elements if tag == "a"}
    assert rows <= links
    ids = [attrs["id"] for _tag, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_hostile_names_make_no_element_and_no_attribute():
    raw = report([hostile_run()], title=HOSTILE_NAME)
    page = Page(raw)
    tags = [tag for tag, _attrs in page.elements]
    assert tags.count("script") == 3
    assert "img" not in tags
    assert not any(attrs.get("href", "").startswith("http") for _tag, attrs in page.elements)
    assert not any(name.startswith("on") for _tag, attrs in page.elements for name in attrs)
    text = raw.decode()
    assert "\u202e" not in text
    assert "&lt;script&gt;window.harm" in text
    assert "<script>window.harm" not in text
    assert "\\u202e" in text


def test_json_cannot_end_its_element():
    text = safe_json({"</script>": "<!--&\u2028"})
    assert not set("<>&\u2028") & set(text)


def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path, capsys):
    folder = tmp_path / "results" / "host" / REFERENCE.name
    shutil.copytree(REFERENCE, folder)
    cells = sorted((folder / "cells").glob("*.json"))
    okay = [path for path in cells if '"status": "ok"' in path.read_text()][:3]
    okay[0].write_bytes(okay[0].read_bytes()[:200])  # truncated
    flipped = bytearray(okay[1].read_bytes())
    flipped[len(flipped) // 2] ^= 4
    okay[1].write_bytes(bytes(flipped))
    newer = re.sub(r'"schema": 1', '"schema": 99', okay[2].read_text())
    (folder / "cells" / "ffffffffffffffff.json").write_text(
        newer
    )  # not in the manifest: its own words are what refuses it
    output = tmp_path / "report.html"
    assert call(["report", str(folder), "-o", str(output)]) == 0
    said = capsys.readouterr().err
    text = output.read_text()
    for path in (okay[0], okay[1], folder / "cells" / "ffffffffffffffff.json"):
        assert path.name in said
        assert path.name in text
    assert "schema 99" in text
    assert "Left out: 3 files could not be read" in text
    assert text.count("<article") == CELLS - 2
    for form in ("md", "csv", "json", "terminal"):
        assert call(["leaderboard", str(folder), "--format", form]) == 0
        out = capsys.readouterr()
        assert all(name in out.out + out.err for name in (okay[0].name, okay[1].name, "schema 99"))
        assert "distillation" in out.out


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingDependency) as caught:
        report([run_of(board_records())])
    assert "compression-harness[report]" in caught.value.hint


def test_the_lineage_tells_what_each_step_changed():
    run = load_run(REFERENCE)
    made = next(
        r for r in run.records if r.labels["method"] == "channel-pruning+int8" and r.labels["target"] == "openvino"
    )
    page = cell_page(made, run)
    stages = [row[0] for row in page.lineage.rows]
    assert stages == ["fit", "compress", "compress", "export", "lower"]
    pruned = page.lineage.rows[1]
    assert pruned[1] == "channel-pruning"
    before, after = (step.effect for step in made.lineage[:2])
    share = round(100 * (after["parameters"] / before["parameters"] - 1))
    assert f"{abs(share)} %)" in pruned[4]
    assert f"{after['parameters']:,.0f}".replace(",", "\u202f") in pruned[4]
    assert page.lineage.rows[2][3:7] == ("", "", "", "")
    assert "smaller than the anchor" in page.lineage.rows[-1][6]
    assert len(page.noise.rows) == sum(
        launch.cell_id == made.cell_id for item in run.sets_of(made) for launch in item.launches
    )
    assert sum(share for _op, share, _kind in page.bars) <= 100.01
    assert page.command == (
        "harness bench --workloads digits-resnet8 --methods channel-pruning+int8 --targets openvino "
        "--threads 1 --batch 1 --profile quick --seed 0"
    )


def test_the_page_of_a_cell_shows_agreement_with_its_interval():
    page = beyond_page(record("int8", quality=quality(0.99, 0.003, lost=3, gained=1)))
    figures = {row[0]: row[1] for row in page.rows}
    assert figures["top1_agreement"] == f"0.991 (0.977{DASH}0.997)"
    assert figures["sqnr_db"] == "31.2"


def test_the_report_lists_what_each_target_loaded():
    text = report([run_of(board_records())]).decode()
    assert "2 shared objects that onnxruntime loaded" in text
    assert "numpy.libs/libopenblas.so its linker wrote no build-id 25409073 bytes" in text


def test_samples_are_thinned_in_order_and_quantiles_are_of_all():
    import numpy as np

    run = load_run(REFERENCE)
    made = next(record for record in run.records if record.labels["method"] == "int8" and record.status == "ok")
    found = samples(made, run)
    every = [
        ns
        for item in run.sets_of(made)
        for launch in item.launches
        if launch.cell_id == made.cell_id
        for b in launch.batches
        for ns in b.ns
    ]
    assert found["total"] == len(every)
    assert sum(len(item["ms"]) for item in found["launches"]) <= 1300
    assert found["quantiles"][50] == pytest.approx(np.median(every) / 1e6, rel=1e-4)


def test_answers_name_every_cell_that_may_be_the_first():
    frame = table(load_run(REFERENCE))
    rows = [row for row in frame.to_dict("records") if row["status"] == "ok" and not row["overhead"]]
    found = {answer.question: answer for answer in answers(rows)}
    name = "{method} on {target}".format_map
    rows = [row for row in rows if row["pass_99"]]  # what loses more of the float quality answers nothing
    surely = min(row["cross_rank_worst"] for row in rows)  # the best place that somebody surely has
    first = {name(row) for row in rows if row["cross_rank_best"] <= surely}
    assert set(found["fastest"].names) == first
    best = max(rows, key=lambda row: row["cross_speedup"])
    assert name(best) in first
    assert float(found["fastest"].figure.partition("\N{MULTIPLICATION SIGN}")[0]) == pytest.approx(
        best["cross_speedup"], rel=0.005
    )
    assert found["smallest file"].names == (name(min(rows, key=lambda row: row["artifact_bytes"])),)
    assert "by their whole interval" in found["fastest"].doubt
    one = [row for row in rows if row["target"] == "onnxruntime"]
    for row in one:
        row["cross_rank_best"] = None
    ties = {answer.question: answer for answer in answers(one)}["fastest on onnxruntime"]
    surely = min(row["rank_worst"] for row in one)
    assert set(ties.names) == {name(row) for row in one if row["rank_best"] <= surely}


def test_a_gate_is_stated_and_the_open_division_has_no_rank():
    text = report([load_run(REFERENCE)], gate=parse_gate("99", "interval")).decode()
    assert "gated division: 99 % of the float anchor" in text


def test_the_command_line_writes_a_whole_file(tmp_path, capsys):
    output = tmp_path / "out.html"
    assert call(["report", str(ROOT / "results" / "reference"), "-o", str(output), "--title", "A <title>"]) == 0
    assert "opens offline" in capsys.readouterr().out
    text = output.read_text()
    assert text.rstrip().endswith("</html>")
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert call(["report", str(ROOT / "results" / "reference"), "-o", str(output), "--gate", "x"]) == 2
    assert output.read_text() == text
    assert info().run_id not in text


def test_several_workloads_have_a_section_each_and_one_for_all():
    speeds = (("a", 2.0), ("b", 8.0))
    made = [record(method, workload=name) for name, _speed in speeds for method in ("baseline",)]
    made += [record("int8", workload=name, latency=latency(1.0, speed_up=speed)) for name, speed in speeds]
    text = report([run_of(tuple(made))]).decode()
    assert text.count('<section class="part" id="part-') == 2
    assert "Over all workloads" in text
    assert "4.00\N{MULTIPLICATION SIGN}" in text  # the geometric mean of 2 and 8
    assert "Over all workloads" not in report([run_of((record(),))]).decode()
