"""A stored result is reused for the data that it was measured on, and for no other."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
from records import Host, info
from test_bench_parts import planned
from test_compare import run, sides

from harness.bench.records import CheckPart, Context
from harness.bench.run import _info
from harness.bench.shared import Shared
from harness.build import Built, Evaluation
from harness.compare import compare
from harness.plan import Request, make_plan
from harness.profiles import PROFILES
from harness.store import RunStore
from harness.types import Artifact, Model, TensorSpec


def built(data: str) -> Built:
    inputs = {"x": TensorSpec("float32", (None, 2))}
    return Built(
        Artifact(Path("m.onnx"), "onnx", "1" * 64, "float32", "", 1, 1),
        Model("onnx", Path("m.onnx"), inputs, ("y",)),
        Evaluation(Path("test"), 4, True, data, inputs),
        {},
        False,
    )


def checked(store: RunStore, data: str) -> CheckPart:
    """Return the accuracy part of a cell whose data have this hash; a new one is told by the seconds it took."""
    cell = replace(planned("baseline"), labels={"workload": "w", "method": "baseline", "target": "a"})
    context = Context("host", "quick", {}, {})
    shared = Shared(
        request=None, profile=PROFILES["quick"], registry=None, store=store, context=context, ui=None,
        built={cell.cell.cell_id: built(data)}, cells=(cell,),
    )  # fmt: skip
    return shared.part(cell, "check", CheckPart, lambda: CheckPart(seconds=float(data[0])), shared.inputs(cell))


def test_accuracy_is_measured_again_when_the_data_changed_under_the_same_name(tmp_path):
    with RunStore.create(tmp_path, info()) as store:
        assert checked(store, "1" * 64).seconds == 1.0
        assert checked(store, "1" * 64).seconds == 1.0
        assert checked(store, "2" * 64).seconds == 2.0


def test_items_of_other_data_are_not_paired_by_compare(tmp_path):
    paths = []
    for name in "ab":
        (tmp_path / name / "scores").mkdir(parents=True)
        for record in run().records:
            np.save(tmp_path / name / "scores" / f"{record.cell_id}.npy", np.ones((400, 1)))
        paths.append(tmp_path / name)

    def on(data: str, path: Path):
        made = tuple(replace(item, provenance={**item.provenance, "evaluation_sha256": data}) for item in run().records)
        return replace(run(), path=path, records=made)

    same = compare(*sides(on("1", paths[0]), on("1", paths[1]))).pairs[0].changes["accuracy"]
    assert same.word == "equivalent"
    other = compare(*sides(on("1", paths[0]), on("2", paths[1]))).pairs[0].changes["accuracy"]
    assert other.word == "unresolved"
    assert "cannot be paired" in other.reason


def test_a_run_goes_on_whatever_is_installed_beside_and_not_with_another_plugin(monkeypatch):
    registry = fakes.registry()
    request = Request(workloads=("digits",), methods=("baseline",), targets=("ort",))
    plan = make_plan(request, registry, fakes.states(), 2)

    def planned_as(changed=registry, asked=request):
        made = plan if asked is request else make_plan(asked, registry, fakes.states(), 2)
        return _info(asked, made, fakes.states(), Host(), changed, None).plan_sha256

    def edited(kind: str, name: str):
        offers = dict(getattr(registry, kind))
        offers[name] = replace(offers[name], source_sha256="edited", plugin=f"{offers[name].plugin}-2")
        return replace(registry, **{kind: offers})

    first = planned_as()
    monkeypatch.setattr(sys.modules["harness.bench.run"], "package_lock", lambda: {"tensorrt": "11"})
    assert planned_as() == first  # what was measured with other versions is told by the store
    assert planned_as(edited("targets", "lite")) == first  # of no cell
    used = replace(registry, targets={**registry.targets, "ort": replace(registry.targets["ort"], source_sha256="x")})
    assert planned_as(used) != first
    assert planned_as(asked=replace(request, timeout_s=5.0)) == first
    assert planned_as(asked=replace(request, memory_limit_bytes=2**30)) != first
