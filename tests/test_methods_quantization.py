"""The methods that only ask: what they ask for, and that the model stays what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
from jobs import make_job

import harness_baseline
import harness_quantization
from harness import params
from harness.api import Calibration, Model, PlanError, Precision, TensorSpec

SPECS = {spec.name: spec for plugin in (harness_baseline, harness_quantization) for spec in plugin.harness_methods()}


def _model(fmt: str = "onnx") -> Model:
    return Model(fmt, Path("/somewhere/model"), {"x": TensorSpec("float32", (None, 3))}, ("y",), flags=("f",))


@pytest.mark.parametrize("fmt", ["torch", "onnx", "tflite"])
@pytest.mark.parametrize("name", sorted(name for name, spec in SPECS.items() if not spec.consumes))
def test_any_format_keeps_its_file(name: str, fmt: str, tmp_path: Path) -> None:
    spec, model = SPECS[name], _model(fmt=fmt)
    result = spec.compress(model, spec.params(), make_job(tmp_path))
    assert not spec.consumes
    assert result.path == model.path
    assert dataclasses.replace(result, precision=model.precision) == model


def test_baseline_returns_the_model_itself(tmp_path: Path) -> None:
    model = _model()
    assert SPECS["baseline"].compress(model, SPECS["baseline"].params(), make_job(tmp_path)) is model
    assert SPECS["baseline"].wants is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("int8", "int8"),
        ("dynamic-int8", "dynamic-int8"),
        ("fp16", "float16"),
        ("weight-only", "weight-only-int8"),
        ("bf16", "bfloat16"),
        ("fp8", "float8"),
    ],
)
def test_precision_has_the_name_that_capabilities_list(name: str, key: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    result = spec.compress(_model(), spec.params(), make_job(tmp_path))
    assert result.precision.name == key
    assert result.precision == spec.wants(spec.params())  # what the plan checks is what the target gets


def test_int8_hands_on_every_parameter(tmp_path: Path) -> None:
    spec = SPECS["int8"]
    given = {"calibration": "entropy", "samples": "32", "granularity": "per-tensor", "symmetric": "true"}
    values = params.build(spec.params, given, owner="method 'int8'")
    asked = spec.compress(_model(), values, make_job(tmp_path)).precision
    assert asked.calibration == Calibration("entropy", 32)
    assert (asked.granularity, asked.activations_symmetric, asked.scheme) == ("per-tensor", True, "static")


@pytest.mark.parametrize("storage", ["packed", "sparse"])
@pytest.mark.parametrize("name", ["int8", "dynamic-int8", "fp16", "weight-only", "bf16", "fp8"])
def test_storage_of_an_earlier_step_stays(name: str, storage: Literal["packed", "sparse"], tmp_path: Path) -> None:
    spec = SPECS[name]
    model = dataclasses.replace(_model(), precision=Precision(storage=storage))
    result = spec.compress(model, spec.params(), make_job(tmp_path))
    assert result.precision.storage == storage


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"samples": "0"}, "1 <= x"),
        ({"calibration": "max"}, "minmax, percentile, entropy, mse, moving-average"),
        ({"granularity": "per-row"}, "per-channel, per-tensor"),
        ({"symmetric": "perhaps"}, "bool | none"),
        ({"sample": "8"}, "no parameter 'sample'"),
    ],
)
def test_bad_parameters_are_one_sentence(given: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        params.build(SPECS["int8"].params, given, owner="method 'int8'")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
