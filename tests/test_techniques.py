"""The page of techniques: a line for each, figures from runs, reasons where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fakes
import records

from harness.cli.main import call
from harness.leaderboard import table
from harness.leaderboard.techniques import TITLES, _named, technique_table
from harness.plugins import load_registry

ROOT = Path(__file__).parents[1]


def page() -> dict[tuple[str, str], str]:
    specs = {spec.name: spec for spec in fakes.methods()}
    specs["int8"] = replace(specs["int8"], techniques=("Q01", "their own"))
    specs["distillation"] = replace(specs["distillation"], techniques=("knowledge distillation",))
    rows = (
        records.record("baseline"),
        records.record("int8"),
        records.failed("int8", "tflite", "not-applicable", "plan", "tflite", "it has no kernel | here"),
        records.record("distillation+int8"),
    )
    lines = technique_table(table(records.run_of(rows)), specs).splitlines()
    assert lines[0] == "| technique | method | onnxruntime | tflite |"
    cells = [line.replace(r"\|", "/").strip("| ").split(" | ") for line in lines[2:]]
    return {(cell[0].split()[0], cell[1]): " | ".join(cell[2:]) for cell in cells}


def test_a_measured_technique_has_its_figures_and_one_that_cannot_be_its_reason() -> None:
    found = page()["Q01", "`int8`"]
    assert "measured, speed 2.52 (faster), drop 0.2 pp" in found
    assert "not-applicable: it has no kernel / here" in found


def test_a_technique_that_was_measured_in_a_pipeline_names_it() -> None:
    assert "(as distillation+int8) | not in these runs" in page()["D01", "`distillation`"]


def test_a_technique_that_a_parameter_makes_is_measured_only_with_it() -> None:
    specs = {spec.name: spec for spec in fakes.methods()}
    specs["int8"] = replace(specs["int8"], techniques=("calibration:calibration=mse", "bit widths:bits"))
    rows = (records.record("baseline"), records.record("int8"), records.record("int8"))
    labels = {**rows[2].labels, "method": "int8:calibration=mse"}
    made = table(records.run_of((*rows[:2], replace(rows[2], cell_id="other", labels=labels))))
    lines = technique_table(made, specs)
    assert "| `int8:calibration=mse` | measured" in lines
    assert "(as int8" not in lines  # the line names it
    assert "| `int8:bits` | not in these runs |" in lines


def test_a_method_as_it_is_by_default_goes_before_its_variants_which_are_named() -> None:
    specs = {spec.name: spec for spec in fakes.methods()}
    specs["int8"] = replace(specs["int8"], techniques=("integer quantization",))
    base, cell = records.record("baseline"), records.record("int8")
    labels = {**cell.labels, "method": "int8:calibration=mse"}
    variant = replace(cell, cell_id="other", labels=labels, artifact=records.artifact(1000))
    assert "(as int8:calibration=mse)" in technique_table(table(records.run_of((base, variant))), specs)
    both = technique_table(table(records.run_of((base, variant, cell))), specs)
    assert both == technique_table(table(records.run_of((base, cell, variant))), specs)
    assert "(as " not in both


def test_another_workload_than_the_usual_one_is_named() -> None:
    specs = {spec.name: spec for spec in fakes.methods()}
    specs["int8"] = replace(specs["int8"], techniques=("Q01",))
    base, cell = records.record("baseline"), records.record("int8")
    other = replace(cell, labels={**cell.labels, "workload": "tiny-gru"})
    more = replace(records.record("fp16"), cell_id="third")
    made = table(records.run_of((base, more, other)))
    assert "(on tiny-gru) |" in technique_table(made, specs)
    assert "(on " not in technique_table(table(records.run_of((base, more, cell))), specs)


def test_every_known_technique_has_a_line_also_one_of_a_plugins_own() -> None:
    found = {one for one, _method in page()}
    assert set(TITLES) <= found
    assert "their" in found
    assert ("M05", "no installed method |") in page() or any(one == "M05" for one, _ in page())


def test_every_method_names_what_it_carries() -> None:
    registry = load_registry()
    silent = [name for name, offer in registry.methods.items() if not offer.spec.techniques and name != "baseline"]
    assert not silent, f"without techniques: {silent}"
    carried = {_named(one)[0] for offer in registry.methods.values() for one in offer.spec.techniques}
    assert not {one for offer in registry.methods.values() for one in offer.spec.techniques} & set(TITLES)
    assert not carried - set(TITLES.values())  # in words: the numbers are the table's


def test_the_command_refuses_what_it_cannot_do(capfd) -> None:
    run = str(next(path.parent for path in (ROOT / "results" / "reference").glob("*/*/run.json")))
    assert call(["methods", "int8", "--table", run]) == 2
    assert "leave out the name" in capfd.readouterr().err
    assert call(["methods", "--table", run]) == 0
    assert "| Q01 integer quantization |" in capfd.readouterr().out


def test_the_page_holds_what_the_command_prints(capfd) -> None:
    page = (ROOT / "docs" / "techniques.md").read_text()
    (line,) = [line.strip() for line in page.splitlines() if line.startswith("harness methods --table")]
    runs = [str(ROOT / word) for word in line.split()[2:] if word != "--table"]
    assert call(["methods", *(word for run in runs for word in ("--table", run))]) == 0
    printed = capfd.readouterr().out.splitlines()
    shown = page.split("<!-- table -->\n")[1].split("<!-- /table -->")[0].splitlines()
    assert len(shown) > len(TITLES)
    assert [line for line in shown if line not in printed] == []  # a method that is newer than the page may be missing
