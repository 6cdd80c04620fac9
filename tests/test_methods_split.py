"""A network in parts: where it is cut, that the chain computes what the whole does, and that each part is timed."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import records
import torch
from jobs import WORKLOADS, compress, digits, make_job, trained
from torch import nn

import harness_decomposition
from harness import stats
from harness.api import Model, Options, Precision, TensorSpec, Unsupported
from harness.build import parts
from harness.codec import content_sha256
from harness.leaderboard import render, table
from harness.measure.chain import Chain, opened
from harness.plan import Request, make_plan
from harness.plan.resolve import choose
from harness.plugins import load_registry
from harness.profiles import PROFILES
from harness.types import Artifact, Batch, Step
from harness_torch import call, example_inputs, load, macs, parameters
from harness_torch.parts import Cuttable

SPLIT = next(spec for spec in harness_decomposition.harness_methods() if spec.name == "split")
REGISTRY = load_registry()


def cuttable(name: str) -> Cuttable:
    work = WORKLOADS[name]
    torch.manual_seed(0)
    return Cuttable(work.build().eval(), example_inputs(work.inputs, 2), example_inputs(work.inputs, 3))


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_in_a_row_compute_bit_by_bit_what_the_whole_does(name: str, count: int, tmp_path: Path) -> None:
    model = trained(tmp_path, name, epochs=0)
    made = compress(SPLIT, model, make_job(tmp_path, name), parts=count)
    arrays = make_job(tmp_path, name).data.split("selection").inputs
    assert len(made.parts) == count
    for one, other in zip(call(load(made), arrays).values(), call(load(model), arrays).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    names = set(model.inputs)
    for part in made.parts:  # each takes only what was given before it
        assert set(part.inputs) <= names
        names |= set(part.outputs)
    assert made.parts[-1].outputs == model.outputs
    assert sum(parameters(load(part)) for part in made.parts) == parameters(load(model))


def test_the_parts_have_all_products_and_get_equal_shares_of_what_is_asked_for(tmp_path: Path) -> None:
    model = trained(tmp_path, "cnn", epochs=0)
    whole = macs(load(model), example_inputs(model.inputs, 1))
    made = compress(SPLIT, model, make_job(tmp_path, "cnn"), parts=3)
    counted = [macs(load(part), example_inputs(part.inputs, 1)) for part in made.parts]
    assert sum(counted) == whole
    by_parameters = compress(SPLIT, model, make_job(tmp_path, "cnn"), parts=2, balance="parameters")
    sizes = [parameters(load(part)) for part in by_parameters.parts]
    uneven = [parameters(load(part)) for part in compress(SPLIT, model, make_job(tmp_path, "cnn"), parts=2).parts]
    assert max(sizes) <= max(uneven)


@pytest.mark.parametrize("count", [2, 3])
def test_no_other_cuts_balance_better(count: int) -> None:
    network = cuttable("cnn")
    total = sum(network.macs)

    def worst(cuts: Any) -> int:
        places = [0, *(cut.after + 1 for cut in cuts), len(network.nodes)]
        return max(sum(network.macs[a:b]) for a, b in itertools.pairwise(places))

    least = min(worst(cuts) for cuts in itertools.combinations(network.places, count - 1))
    chosen = network.best(count, network.macs)
    assert worst(chosen) <= 1.1 * least < total
    alike = [cuts for cuts in itertools.combinations(network.places, count - 1) if worst(cuts) <= 1.1 * least]
    assert sum(cut.elements for cut in chosen) == min(sum(cut.elements for cut in cuts) for cuts in alike)


def test_a_cut_through_a_residual_lets_both_ways_cross() -> None:
    network = cuttable("cnn")
    both = [place for place in network.places if len(place.crossing) == 2]
    assert both, "inside the residual two values are alive"
    made = network.cut([both[0]])
    assert len(made[0][2]) == len(made[1][1]) == 2


class Flat(nn.Module):
    """Nothing that crosses a cut keeps the batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image.flatten(1).t().t())


class Branching(nn.Module):
    """Code that depends on values cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.one(image.flatten(1)) if image.sum() > 0 else image.flatten(1)[:, :10]


def of_module(module: nn.Module, folder: Path) -> Model:
    folder.mkdir(exist_ok=True)
    torch.save(module.eval(), folder / "own.pt")
    return Model("torch", folder / "own.pt", WORKLOADS["cnn"].inputs, ("output",))


def test_what_cannot_be_split_is_said_in_a_sentence(tmp_path: Path) -> None:
    job = make_job(tmp_path, "cnn")
    with pytest.raises(Unsupported, match="cannot follow the code"):
        compress(SPLIT, of_module(Branching(), tmp_path / "a"), job)
    with pytest.raises(Unsupported, match=r"split into 9 parts needs 8 places .* this network has 2"):
        compress(SPLIT, of_module(Flat(), tmp_path / "b"), job, parts=9)
    bound = dataclasses.replace(trained(tmp_path, epochs=0), precision=Precision(overrides={"head.weight": "float32"}))
    with pytest.raises(Unsupported, match="says of single tensors"):
        compress(SPLIT, bound, job)


def test_it_comes_last_in_a_pipeline() -> None:
    request = Request(workloads=("tiny-conv",), methods=("split:parts=2+int8",), targets=("onnxruntime",))
    with pytest.raises(Exception, match=r"'int8' comes before 'split'|write int8\+split"):
        make_plan(request, REGISTRY, {}, 2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """Return a network and what it is in two parts, as ONNX files."""
    folder = tmp_path_factory.mktemp("exported")
    model = trained(folder / "fit", epochs=0)
    made = compress(SPLIT, model, make_job(folder / "split"), parts=2)
    exporter = REGISTRY.exporters["onnx"].spec
    return model, parts.export(lambda one, job: exporter.export(one, Options(), job), made, make_job(folder / "export"))


def lowered(exported: tuple[Model, Model], precision: Precision, folder: Path) -> tuple[Artifact, Any]:
    """Lower a network in parts as a builder does."""
    chosen = choose(REGISTRY, "target", Step("onnxruntime"))
    job = dataclasses.replace(make_job(folder / "lower"), reference=exported[0])
    model = dataclasses.replace(exported[1], precision=precision)
    artifact = parts.lower(lambda one, own: chosen.spec.lower(one, chosen.params, Options(), own), model, job)
    return artifact, chosen


@pytest.mark.parametrize("precision", [Precision(), Precision("int8", "int8", "static")], ids=lambda item: item.name)
def test_the_chain_of_sessions_gives_what_the_whole_network_gives(
    precision: Precision, exported: tuple[Model, Model], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    artifact, chosen = lowered(exported, precision, tmp_path)
    assert artifact.realised == precision.name
    assert artifact.artifact_bytes == sum(part.artifact_bytes for part in artifact.parts)
    assert artifact.sha256 == content_sha256(artifact.path)
    session = opened(chosen.spec, artifact, chosen.params, Options(batch=4), "accuracy")
    images = digits().split("selection").inputs["image"][:4]
    wanted = call(load(exported[0]), [images])["output0"]
    got = session.run({"image": images})["output"]
    assert list(session.inputs) == ["image"]
    assert list(session.outputs) == ["output"]
    assert np.abs(got - wanted).max() < (1e-5 if precision.name == "float32" else 0.1) * np.abs(wanted).max()
    (first, pool), (second, _) = session.alone([{"image": images}])  # type: ignore[attr-defined]
    between = first(pool[0])
    np.testing.assert_array_equal(second(between)["output"], got)
    placed = opened(chosen.spec, artifact, chosen.params, Options(), "placement")
    placed.run({"image": images[:1]})
    assert {item.name.partition(":")[0] for item in placed.placements()} == {"part 1", "part 2"}  # type: ignore[attr-defined]
    session.close()
    placed.close()


def test_what_a_part_is_calibrated_with_is_what_reaches_it(tmp_path: Path) -> None:
    made = compress(SPLIT, trained(tmp_path, epochs=0), make_job(tmp_path), parts=2)
    images = make_job(tmp_path).data.split("calibration").inputs["image"]
    seen = parts.Feeds(made.parts[1].feeds).split("calibration").inputs
    wanted = call(load(made.parts[0]), [np.asarray(images)], outputs=made.parts[0].outputs)
    for name in made.parts[1].inputs:
        np.testing.assert_array_equal(seen[name], images if name == "image" else wanted[name])
    with pytest.raises(Unsupported, match="no train split"):
        parts.Feeds(made.parts[1].feeds).split("train")


class Adds:
    """A session that adds one thing to another."""

    def __init__(self, takes: tuple[str, ...], gives: str) -> None:
        self.takes, self.gives, self.closed = takes, gives, False

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        return {name: TensorSpec("float32", (None, 2)) for name in self.takes}

    @property
    def outputs(self) -> dict[str, TensorSpec]:
        return {self.gives: TensorSpec("float32", (None, 2))}

    def run(self, inputs: Any) -> Any:
        assert set(inputs) == set(self.takes)
        return {self.gives: sum(inputs.values()) + 1}

    def close(self) -> None:
        self.closed = True


def test_a_chain_hands_on_what_later_sessions_ask_for() -> None:
    chain = Chain([Adds(("a",), "x"), Adds(("b", "x"), "y"), Adds(("x", "y"), "z")])
    assert list(chain.inputs) == ["a", "b"]
    one = np.ones((1, 2), np.float32)
    assert chain.run({"a": one, "b": 2 * one})["z"].tolist() == [[8, 8]]  # x = 2, y = 2 + 2 + 1, z = 2 + 5 + 1
    assert not hasattr(chain, "device_memory_bytes")
    chain.close()
    assert all(session.closed for session in chain.sessions)  # type: ignore[attr-defined]


def test_each_parts_time_is_the_median_of_its_launches_and_the_board_shows_it(tmp_path: Path) -> None:
    base, cell = records.record("baseline"), records.record("split")
    one = dataclasses.replace(cell.artifact, artifact_bytes=300)  # type: ignore[type-var]
    artifact = dataclasses.replace(cell.artifact, parts=(one, one), artifact_bytes=600)  # type: ignore[type-var]
    ids = {base.cell_id: 4.0, cell.cell_id: 5.0}
    sets = [records.launch_set("g", index, ids, anchor=base.cell_id) for index in range(6)]
    sets = [
        dataclasses.replace(
            item,
            launches=tuple(
                dataclasses.replace(launch, parts=timed(item.index)) if launch.cell_id == cell.cell_id else launch
                for launch in item.launches
            ),
        )
        for item in sets
    ]
    latency = stats.summarise(cell.cell_id, base.cell_id, sets, PROFILES["quick"])
    assert latency.parts_ns is not None
    assert [span.point for span in latency.parts_ns] == [1_002_500, 2_002_500]  # medians of 1000..1005 µs and 2000..
    assert latency.parts_ns[0].low == 1_000_000  # of six launches the 95 % interval is the whole range
    assert latency.parts_ns[0].high == 1_005_000
    shown = records.run_of((base, dataclasses.replace(cell, artifact=artifact, latency=latency)), tuple(sets))
    text = render(table(shown), "md").decode()
    assert "| split | onnxruntime | 1 of 2 |" in text
    assert "| 33 % |" in text
    assert "| 67 % |" in text
    assert "alone together" in text
    assert "alone together" not in render(table(records.run_of((base,), ())), "md").decode()


def timed(index: int) -> tuple[Batch, ...]:
    us = 1000
    return tuple(Batch(5, at, tuple([(1000 * (at + 1) + index) * us] * 3), 1, 1, 0, 0, 0) for at in range(2))
