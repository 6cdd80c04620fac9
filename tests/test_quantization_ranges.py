"""Ranges of activations against numpy and scipy, and that ranges which bind are the ones in each runtime's file."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import STATIC, conv_net, items, make_job, outputs, placed, sqnr_db
from scipy.stats import entropy

import harness_onnxruntime
import harness_openvino
from harness.api import Artifact, Calibration, Model, Options, Precision, Unsupported
from harness_onnx import ranges, read_encodings
from harness_onnx.ranges import BINS, PERCENTILE, SMOOTHING, Seen, divergence

(ORT,) = harness_onnxruntime.harness_targets()
(OPENVINO,) = harness_openvino.harness_targets()
GIVEN = {"conv1.weight": (0.0, 2.55), "head.weight": (-1.28, 1.27)}
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")


def feeds(count: int = 7, scale: float = 1.0, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"a": (rng.standard_normal(997) * scale * (1 + step)).astype(np.float32)} for step in range(count)]


def everything(runs: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([run["a"] for run in runs])


def test_minmax_is_the_extremes() -> None:
    values = everything(feeds())
    assert ranges(feeds(), "minmax")["a"] == (values.min(), values.max())


def test_zero_is_in_every_range() -> None:
    runs = [{"a": np.array([2.0, 3.0], np.float32)}]
    for method in ("minmax", "percentile", "mse", "entropy", "moving-average"):
        low, high = ranges(runs, method)["a"]
        assert low == 0
        assert 2 < high <= 3


def test_moving_average_is_the_recursion_written_out() -> None:
    low = high = None
    for run in feeds():
        new = float(run["a"].min()), float(run["a"].max())
        low = new[0] if low is None else SMOOTHING * low + (1 - SMOOTHING) * new[0]
        high = new[1] if high is None else SMOOTHING * high + (1 - SMOOTHING) * new[1]
    assert ranges(feeds(), "moving-average")["a"] == pytest.approx((low, high))


def test_percentile_agrees_with_numpy_within_a_bin() -> None:
    rng = np.random.default_rng(5)
    runs = [{"a": rng.standard_normal(200_000).astype(np.float32)}]
    tail = (100 - PERCENTILE) / 2
    wanted = np.percentile(runs[0]["a"], [tail, 100 - tail])
    width = 2 * np.abs(runs[0]["a"]).max() / BINS
    assert np.abs(np.array(ranges(runs, "percentile")["a"]) - wanted).max() <= 2 * width


def test_histogram_survives_growing_ranges() -> None:
    seen, values = Seen(), []
    for scale in (0.1, 3.0, 0.5, 40.0):
        part = np.random.default_rng(int(scale * 10)).standard_normal(500).astype(np.float32) * scale
        seen.update(part)
        values.append(part)
    again = np.histogram(np.concatenate(values), BINS, (-seen.width, seen.width))[0]
    assert seen.counts.sum() == 2000
    assert np.abs(np.cumsum(seen.counts) - np.cumsum(again)).max() <= 2  # items on the edge of a bin


def test_divergence_is_scipys_of_the_published_distributions() -> None:
    counts = np.random.default_rng(1).poisson(5, 512).astype(float)
    stop, levels = 384, 128
    kept = counts[:stop].copy()
    reference = kept.copy()
    reference[-1] += counts[stop:].sum()
    quantized = np.zeros(stop)
    for level in range(levels):  # three bins to a level, spread over the bins that are not empty
        part = slice(3 * level, 3 * level + 3)
        filled = reference[part] > 0
        if filled.any():
            quantized[part][filled] = kept[part].sum() / filled.sum()
    assert divergence(counts, stop, levels) == pytest.approx(entropy(reference, quantized))


def test_entropy_clips_far_outliers() -> None:
    values = np.random.default_rng(2).standard_normal(100_000).astype(np.float32)
    values[0] = 60.0
    low, high = ranges([{"a": values}], "entropy")["a"]
    assert low == -high
    assert 3 < high < 30


def test_entropy_does_not_clip_to_a_background_that_repeats() -> None:
    drawn = np.random.default_rng(0).normal(0.5, 0.5, 5000).clip(-0.8, 1.9).astype(np.float32)
    background = np.full(20000, -0.79, np.float32)
    low, high = ranges([{"a": np.concatenate([background, drawn])}], "entropy")["a"]
    assert low == pytest.approx(-0.8)
    assert high > 1.5
    grey = np.random.default_rng(0).integers(-4, 12, 20000) / 6  # a few values alone: nothing is known between them
    assert ranges([{"a": grey.astype(np.float32)}], "entropy")["a"] == pytest.approx((-4 / 6, 11 / 6))


def test_entropy_of_a_relus_output_is_that_of_its_positive_half() -> None:
    values = np.random.default_rng(7).standard_normal(100_000).astype(np.float32)
    low, high = ranges([{"a": np.maximum(values, 0)}], "entropy")["a"]
    assert (low, high) == ranges([{"a": values[values > 0]}], "entropy")["a"]
    assert high > 3.5


def test_mse_is_the_best_of_all_shrunk_ranges() -> None:
    values = np.random.default_rng(3).laplace(size=20_000).astype(np.float32)

    def error(part: float) -> float:
        low, high = values.min() * part, values.max() * part
        step = (high - low) / 255
        zero = np.rint(-low / step)
        return float((((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step - values) ** 2).sum())

    found = ranges([{"a": values}], "mse")["a"][1] / values.max()
    best = min(error(part / 100) for part in range(30, 101))
    assert error(found) <= 1.02 * best
    assert found < 1


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(Unsupported, match="infinite"):
        ranges([{"a": np.array([np.inf], np.float32)}], "minmax")


def encodings(folder: Path, layers: dict[str, tuple[float, float]], schema: int = 1) -> Path:
    path = folder / "encodings.json"
    data = {"schema": schema, "layers": {name: {"input": list(bounds)} for name, bounds in layers.items()}}
    path.write_text(json.dumps(data))
    return path


def exact(folder: Path, layers: dict[str, tuple[float, float]] = GIVEN) -> Precision:
    return dataclasses.replace(STATIC, realise="exact", encodings=encodings(folder, layers))


def lowered(spec: object, model: Model, folder: Path, precision: Precision) -> Artifact:
    model = dataclasses.replace(model, precision=precision)
    return spec.lower(model, spec.params(), Options(), make_job(folder / "lowered", model))


def quantizers(artifact: Artifact) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of every QuantizeLinear by the tensor it reads."""
    graph = onnx.load(str(artifact.path)).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    return {
        node.input[0]: (float(values[node.input[1]]), int(values[node.input[2]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in values
    }


def test_onnxruntime_takes_the_given_ranges(tmp_path: Path) -> None:
    found = quantizers(lowered(ORT, conv_net(tmp_path), tmp_path, exact(tmp_path)))
    assert found["b"] == (pytest.approx(2.55 / 255), 0)
    assert found["f"] == (pytest.approx(2.55 / 255), 128)  # -1.28 / 0.01 below zero
    assert found["e"] == found["f"]  # its reshaped source


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_onnxruntime_scales_are_those_of_the_specification(method: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    precision = dataclasses.replace(STATIC, calibration=Calibration(method, 48))
    artifact = lowered(ORT, model, tmp_path, precision)
    values = make_job(tmp_path / "again", model).data.split("calibration").inputs["image"]
    low, high = ranges([{"a": values}], method)["a"]
    scale = (high - low) / 255  # ONNX DynamicQuantizeLinear writes the same formula down
    found = quantizers(artifact)["image"]
    assert found[0] == pytest.approx(scale, rel=1e-5)
    assert found[1] == round(-low / scale)
    if method == "mse":
        assert "mse" in artifact.how


@needs_nncf
def test_openvino_takes_the_given_ranges(tmp_path: Path) -> None:
    from harness_openvino.probe import import_openvino

    model = conv_net(tmp_path)
    artifact = lowered(OPENVINO, model, tmp_path, exact(tmp_path))
    graph = import_openvino().Core().read_model(str(artifact.path))
    found = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            bounds = [float(node.input_value(place).get_node().data.ravel()[0]) for place in (1, 2)]
            found[node.input_value(0).get_node().get_friendly_name()] = bounds
    assert found["relu0"] == pytest.approx([0, 2.55])
    assert found["pool"] == pytest.approx([-1.28, 1.27])
    assert {item.precision for item in placed(OPENVINO, artifact, model) if item.macs} == {"int8"}


@needs_nncf
@pytest.mark.parametrize("method", ["entropy", "moving-average"])
def test_openvino_has_the_calibrations_that_nncf_lacks(method: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    artifact = lowered(OPENVINO, model, tmp_path, dataclasses.replace(STATIC, calibration=Calibration(method, 48)))
    feed = items(model, 5, seed=9)
    reference = lowered(OPENVINO, model, tmp_path / "float", Precision())
    agreement = sqnr_db(outputs(OPENVINO, reference, feed)["logits"], outputs(OPENVINO, artifact, feed)["logits"])
    assert agreement > 20
    assert "our own ranges" in artifact.how


def test_encodings_of_another_schema_or_without_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="schema 2"):
        read_encodings(encodings(tmp_path, GIVEN, schema=2))
    with pytest.raises(Unsupported, match="without a 0 inside"):
        read_encodings(encodings(tmp_path, {"head.weight": (1.0, 2.0)}))


def test_encodings_of_an_unknown_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="lost"):
        lowered(ORT, conv_net(tmp_path), tmp_path, exact(tmp_path, {"lost.weight": (0.0, 1.0)}))
