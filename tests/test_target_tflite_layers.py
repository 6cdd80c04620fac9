"""Per-layer SQNR on LiteRT: against numpy, against what builtin kernels keep, and with damage that is planted."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.api import Artifact, Calibration, Job, Model, Options, Precision, Split, TensorSpec
from harness.measure.layers import compared
from harness.types import Layers as Compared

if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("ai-edge-litert is not installed", allow_module_level=True)

from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_files import separable

import harness_tflite
from harness_tflite import flatbuffer
from harness_tflite.layers import outputs_of
from harness_tflite.normal import normal_form
from harness_tflite.params import Params
from harness_tflite.placement import list_nodes

SIDE = 16
NAMES = ("padded", "stem.y", "point0.y", "depth0.y", "point1.y", "depth1.y", "mean")
OPS = ("Pad", "Conv", "Conv", "DepthwiseConv", "Conv", "DepthwiseConv", "Mean")
IMAGES = np.random.default_rng(5).standard_normal((24, SIDE, SIDE, 3)).astype(np.float32)
INT8 = Precision("int8", "int8", "static", calibration=Calibration(samples=16))
OTHERS = [
    (Precision("float16", "float16"), 50),
    (Precision("int8", "int8", "dynamic"), 25),
    (Precision("int8", "float32", "weight-only"), 25),
    (Precision("int4", "float32", "weight-only"), 5),
]


class Data:
    def split(self, name: str) -> Split:
        assert name == "calibration"
        return Split({"x": IMAGES})


def lowered(path: Path, folder: Path, precision: Precision) -> Artifact:
    folder.mkdir()
    names = {name: name for name in ("stem", "point0", "depth0", "point1", "depth1")}
    model = Model(
        "tflite", path, {"x": TensorSpec("float32", (None, SIDE, SIDE, 3))}, ("mean",), precision, names=names
    )
    job = Job(folder, 0, 1, Data(), None, lambda share, text: None, logging.getLogger("harness"))  # type: ignore[arg-type]  # a target looks at no workload
    return harness_tflite.lower(model, Params(), Options(batch=1), job)


@pytest.fixture
def nets(tmp_path: Path) -> SimpleNamespace:
    source = normal_form(separable(tmp_path / "m.tflite", 0.0), tmp_path / "signed.tflite")[0]
    evaluation = tmp_path / "test"
    evaluation.mkdir()
    np.save(evaluation / "x.npy", IMAGES)
    anchor = lowered(source, tmp_path / "float", Precision())
    return SimpleNamespace(source=source, folder=tmp_path, evaluation=evaluation, anchor=anchor)


def opened(artifact: Artifact, *, batch: int = 1, xnnpack: bool = True) -> harness_tflite.Session:
    return harness_tflite.open_session(artifact, Params(xnnpack=xnnpack), Options(batch=batch), "accuracy")


def compare(artifact: Artifact, nets: SimpleNamespace, *, xnnpack: bool = True) -> Compared:
    sessions = (opened(item, xnnpack=xnnpack) for item in (artifact, nets.anchor))
    return compared(*sessions, nets.evaluation, target="tflite", batch=1, items=len(IMAGES))


def by_name(found: Compared) -> dict[str, float]:
    return {item.name: item.sqnr_db for item in found.outputs}


def windows(data: np.ndarray) -> np.ndarray:
    """Return [n, h, w, c, 3, 3]."""
    return np.lib.stride_tricks.sliding_window_view(data, (3, 3), axis=(1, 2))


def in_numpy(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every tensor of ``separable`` in float64."""
    model = flatbuffer.open_model(path)
    held = {name: np.frombuffer(raw, np.float32).astype(float) for name, raw in flatbuffer.constant_bytes(path)}
    assert len(flatbuffer.nodes(model)) == len(NAMES)
    relu = lambda data: np.maximum(data + 0.1, 0)  # noqa: E731  every layer's bias and activation
    found = {"padded": np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))}
    stem = held["stem"].reshape(16, 3, 3, 3)
    here = found["stem.y"] = relu(np.einsum("nhwcij,oijc->nhwo", windows(found["padded"])[:, ::2, ::2], stem))
    for block in (0, 1):
        point, depth = held[f"point{block}"].reshape(16, 16), held[f"depth{block}"].reshape(3, 3, 16)
        here = found[f"point{block}.y"] = relu(here @ point.T)
        bordered = np.pad(here, ((0, 0), (1, 1), (1, 1), (0, 0)))
        here = found[f"depth{block}.y"] = relu(np.einsum("nhwcij,ijc->nhwc", windows(bordered), depth))
    return {**found, "mean": here.mean((1, 2), keepdims=True)}


def by_builtin_kernels(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the tensors hold that LiteRT keeps by itself, without XNNPACK."""
    plain = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    plain.allocate_tensors()
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    for image in images:
        plain.set_tensor(plain.get_input_details()[0]["index"], image[None])
        plain.invoke()
        for entry in plain.get_tensor_details():
            if entry["name"] in found:
                scale, zero = entry["quantization"]
                values = plain.get_tensor(entry["index"]).astype(float)
                found[entry["name"]].append((values - zero) * (scale or 1))
    return {name: np.concatenate(values) for name, values in found.items()}


def sqnr(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((wanted - found) ** 2)))


def test_floats_are_what_numpy_computes(nets: SimpleNamespace) -> None:
    told = list(opened(nets.anchor).layers({"x": IMAGES[:1]}))
    assert [(item.name, item.op) for item in told] == list(zip(NAMES, OPS, strict=True))
    wanted = in_numpy(nets.source, IMAGES[:1])
    for item in told:
        np.testing.assert_allclose(item.values, wanted[item.name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("xnnpack", "apart"), [(False, 1e-3), (True, 1.0)])  # XNNPACK rounds some ties another way
def test_int8_is_what_the_builtin_kernels_keep_against_numpy(
    nets: SimpleNamespace, xnnpack: bool, apart: float
) -> None:
    artifact = lowered(nets.source, nets.folder / "int8", INT8)
    right, held = in_numpy(nets.source, IMAGES), by_builtin_kernels(artifact.path, IMAGES)
    wanted = {name: sqnr(right[name], held[name]) for name in NAMES}
    found = compare(artifact, nets, xnnpack=xnnpack)
    assert by_name(found) == pytest.approx(wanted, abs=apart)
    assert all(20 < value < 60 for value in wanted.values())
    assert (found.items, found.unmatched) == (24, 0)
    assert [item.name for item in sorted(found.outputs, key=lambda item: item.place)] == list(NAMES)


@pytest.mark.parametrize("precision", [INT8, OTHERS[1][0]], ids=["static", "dynamic"])
def test_further_outputs_leave_xnnpacks_partition_and_the_last_bit(nets: SimpleNamespace, precision: Precision) -> None:
    session = opened(lowered(nets.source, nets.folder / "int8", precision))
    *_, last = session.layers({"x": IMAGES[:1]})
    np.testing.assert_array_equal(last.values, session.run({"x": IMAGES[:1]})["mean"])
    kinds = [
        [entry["op_name"] for entry in list_nodes(item._interpreter)]  # type: ignore[attr-defined]
        for item in (session, session._layers)  # type: ignore[attr-defined]
    ]
    assert kinds[0] == kinds[1]
    assert kinds[0].count("DELEGATE") == 1


@pytest.mark.parametrize(("precision", "least"), OTHERS, ids=[item.name for item, _least in OTHERS])
def test_every_operator_is_compared(nets: SimpleNamespace, precision: Precision, least: float) -> None:
    found = compare(lowered(nets.source, nets.folder / "other", precision), nets)
    assert set(by_name(found)) == set(NAMES)
    assert by_name(found).pop("padded") == 300
    assert all(least < value < 120 for name, value in by_name(found).items() if name != "padded")


def test_planted_damage_is_found_where_it_is(nets: SimpleNamespace) -> None:
    hurt = nets.folder / "hurt.tflite"
    raw = nets.anchor.path.read_bytes()
    (weights,) = (held for name, held in flatbuffer.constant_bytes(nets.anchor.path) if name == "depth0")
    assert raw.count(weights) == 1
    hurt.write_bytes(raw.replace(weights, (np.frombuffer(weights, np.float32) * np.float32(1.5)).tobytes()))
    decibels = by_name(compare(dataclasses.replace(nets.anchor, path=hurt), nets))
    assert {name for name, value in decibels.items() if value == 300} == set(NAMES[:3])
    assert all(decibels[name] < 30 for name in NAMES[3:])


def test_a_float_operator_is_read_where_the_next_one_reads_it(nets: SimpleNamespace) -> None:
    mixed = dataclasses.replace(INT8, overrides={"point0": "float32"})
    artifact = lowered(nets.source, nets.folder / "mixed", mixed)
    tensor, op = outputs_of(artifact.path)["point0.y"]
    names = flatbuffer.tensor_names(flatbuffer.open_model(artifact.path))
    assert op == "CONV_2D"
    assert names[tensor] != "point0.y"  # QUANTIZE's
    found = compare(artifact, nets)
    assert set(by_name(found)) == set(NAMES)
    assert 20 < by_name(found)["point0.y"] < 60


def test_another_batch_is_resized_there_too(nets: SimpleNamespace) -> None:
    session = opened(nets.anchor, batch=3)
    assert {item.values.shape[0] for item in session.layers({"x": IMAGES[:3]})} == {3}
