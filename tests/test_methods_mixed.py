"""Mixed precision: which layers get more bits, by sensitivities that numpy finds too, under a budget that binds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import TinyTransformer, compress, make_job, trained
from torch import nn

import harness_quantization
from harness.api import Model, PlanError, Precision
from harness.plan.resolve import choose
from harness.plugins import load_registry
from harness.types import Step
from harness_quantization import mixed, simulated
from harness_torch import call, evaluate, example_inputs, load

SPEC = next(spec for spec in harness_quantization.harness_methods() if spec.name == "mixed-precision")
LADDER = "int4/int8/float32"


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("cnn"), epochs=6)


def rounded(weight: np.ndarray, bits: int) -> np.ndarray:
    """Weights on the symmetric grid of a scale per output channel."""
    flat = weight.reshape(len(weight), -1)
    scale = np.abs(flat).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.rint(flat / scale) * scale).reshape(weight.shape)


def lost(model: Model, job: Any, widths: dict[str, str]) -> float:
    """What the metric loses when these weights are rounded, with no help from the method's own code."""
    module = load(model)
    before = evaluate(module, job)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in widths and widths[name] != "float32":
                parameter.copy_(torch.from_numpy(rounded(parameter.numpy(), int(widths[name][3:]))))
    return before - evaluate(module, job)


def test_mixed_precision_keeps_what_costs_most(cnn: Model, tmp_path: Path) -> None:
    job, module = make_job(tmp_path), load(cnn)
    with torch.no_grad():  # one channel of huge inputs ruins an 8-bit grid for the others
        module.point.weight[0] *= 4000
        module.hidden.weight[:, :4] /= 4000
    torch.save(module, tmp_path / "wide.pt")
    model = dataclasses.replace(cnn, path=tmp_path / "wide.pt")
    module = load(model)
    chosen = simulated.layers(module, example_inputs(job))
    ranges = simulated.input_ranges(module, chosen, job, 64)
    errors = mixed.sensitivities(module, chosen, ranges, job.data.split("calibration").inputs)
    assert max(errors, key=errors.__getitem__) == "hidden.weight"
    result = compress(SPEC, model, job, budget=0.0)
    assert dict(result.precision.overrides).get("hidden.weight") == "float32"
    assert compress(SPEC, model, job, budget=1.0).precision.overrides == {}
    again = load(model).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in module.state_dict().items())  # simulation undone


@pytest.mark.parametrize(("width", "bits"), [("int8", 8), ("int4", 4)])
def test_sensitivity_is_the_squared_change_of_the_outputs(width: str, bits: int, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(6, 5, bias=False)).eval()
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    chosen = simulated.layers(module, (torch.from_numpy(x),))
    found = mixed.sensitivities(module, chosen, {}, {"x": x}, width)
    weight = module[0].weight.detach().numpy()
    change = x @ (rounded(weight, bits) - weight).T
    assert found == {"0.weight": pytest.approx(float((change**2).mean()), rel=1e-3)}


@pytest.mark.parametrize("widths", ["int8/float32", LADDER])
def test_the_matrices_of_a_recurrent_layer_take_one_width_together(widths: str, tmp_path: Path) -> None:
    model = trained(tmp_path, "gru")
    job, module = make_job(tmp_path, "gru"), load(model)
    names = ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    items, narrow = job.data.split("calibration").inputs, widths.split("/")[0]
    chosen = simulated.layers(module, example_inputs(job), recurrent=True)
    errors = mixed.sensitivities(module, chosen, {}, items, narrow)
    plain = call(module, items)["output0"]
    with torch.no_grad():
        for name, parameter in module.gru.named_parameters():
            if name.startswith("weight"):
                parameter.copy_(torch.from_numpy(rounded(parameter.numpy(), int(narrow[3:]))))
    change = call(module, items)["output0"] - plain
    assert list(errors) == ["gru.weight_ih_l0", "head.weight"]
    assert errors["gru.weight_ih_l0"] == pytest.approx(float((change**2).mean()), rel=1e-3)
    job = dataclasses.replace(job, workload=_Never(job.workload))
    overrides = compress(SPEC, model, job, budget=0.0, widths=widths, most=1.0).precision.overrides
    assert overrides == dict.fromkeys([*names, "head.weight"], "float32")
    assert json.loads((job.out / "effect.json").read_text())["layers_float32"] == 2


def test_widths_of_weights_alone_ask_for_no_ranges(cnn: Model, tmp_path: Path) -> None:
    for widths in (LADDER, "int4/float32"):
        result = compress(SPEC, cnn, make_job(tmp_path), budget=1.0, widths=widths)
        assert result.precision == Precision(weights="int4", scheme="weight-only")
        assert result.precision == SPEC.wants(mixed.MixedParams(widths=widths))
        assert result.path == cnn.path
    assert compress(SPEC, cnn, make_job(tmp_path), budget=1.0).precision.name == "int8"


class _Distance:
    """A workload judged by the mean squared distance from the float model's own outputs: less is better."""

    higher_is_better = False

    def __init__(self, inner: Any, plain: np.ndarray) -> None:
        self.inner = inner
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def score(self, outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        return ((outputs["output"] - self.plain) ** 2).mean(1, keepdims=True)


def test_layers_go_up_one_width_at_a_time_until_the_budget_holds(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    module = load(cnn)
    plain = call(module, job.data.split("selection").inputs, outputs=job.workload.outputs)["output"]
    job = dataclasses.replace(job, workload=_Distance(job.workload, plain))
    chosen = simulated.layers(module, example_inputs(job))
    narrow = {item.name: "int4" for item in chosen}
    budget = -lost(cnn, job, narrow) / 3
    result = compress(SPEC, cnn, job, budget=budget, widths=LADDER)
    wider = dict(result.precision.overrides)
    assert set(wider.values()) == {"int8"}
    effect = json.loads((job.out / "effect.json").read_text())
    assert (effect["layers_int4"], effect["layers_int8"]) == (len(narrow) - len(wider), len(wider))
    assert effect["simulated_loss"] == pytest.approx(-lost(cnn, job, narrow | wider), rel=1e-4)
    assert 0 < len(wider) < len(narrow)
    assert -lost(cnn, job, narrow | wider) <= budget
    errors = mixed.sensitivities(module, chosen, {}, job.data.split("calibration").inputs, "int4")
    order = sorted(narrow, key=errors.__getitem__, reverse=True)
    assert set(wider) == set(order[: len(wider)])  # those that cost most, and no more of them than it takes
    fewer = dict.fromkeys(order[: len(wider) - 1], "int8")
    assert -lost(cnn, job, narrow | fewer) > budget
    whole = compress(SPEC, cnn, job, budget=budget, widths="int4/float32").precision.overrides
    assert set(whole.values()) == {"float32"}  # no width between


def test_no_more_than_the_asked_share_stays_float(cnn: Model, tmp_path: Path) -> None:
    plain = make_job(tmp_path)
    for widths, rest in ((LADDER, "int8"), ("int4/float32", None), ("int8/float32", None)):
        job = dataclasses.replace(plain, workload=_Never(plain.workload))
        result = compress(SPEC, cnn, job, budget=0.0, most=0.3, widths=widths)
        found = list(result.precision.overrides.values())
        layers = len(simulated.layers(load(cnn), example_inputs(job)))
        assert found.count("float32") == int(np.ceil(0.3 * layers))
        assert found.count("int8") == (layers - found.count("float32") if rest else 0)


class _Never:
    """A workload in which whatever is not the float model itself loses one point more than the budget."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    higher_is_better = True

    def aggregate(self, scores: np.ndarray) -> float:
        self.calls += 1
        return 1.0 if self.calls == 1 else 0.0


def test_projections_inside_attention_can_be_given_bits_where_only_weights_are_narrow(tmp_path: Path) -> None:
    module = TinyTransformer()
    inputs = (torch.randn(2, 1, 8, 8),)
    plain = {item.name for item in simulated.layers(module, inputs)}
    more = {item.name for item in simulated.layers(module, inputs, attention=True)} - plain
    assert {name.rpartition("self_attn.")[2] for name in more} == {"in_proj_weight", "out_proj.weight"}


@pytest.mark.parametrize(
    ("given", "words"), [({"budget": "-1"}, "0 <= x"), ({"widths": "int3/int8"}, "int4/int8/float32")]
)
def test_bad_parameters_are_refused_before_anything_runs(given: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        choose(load_registry(), "method", Step("mixed-precision", given))
