"""What each installed target says of itself is tried: a listed precision runs, a gap is refused, a device is there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jobs
import onnx_files
import pytest

from harness.api import Calibration, HarnessError, Model, Options, Precision, Unsupported
from harness.isa import cpu_features, int8_dot_product
from harness.plugins import load_registry

if TYPE_CHECKING:
    import numpy as np

TARGETS = {name: offer.spec for name, offer in load_registry().targets.items() if offer.spec.ranked}
AS = [*TARGETS, "torch:mode=compile"]  # the compiled mode has precisions of its own
SPLIT_NAMES = {"static": ("int8",), "float": ("float32", "float16", "bfloat16", "float8")}


def precision_named(name: str) -> Precision:
    """Return the precision that ``Precision.name`` names so."""
    for scheme in ("dynamic", "weight-only"):
        if name.startswith(f"{scheme}-"):
            weights = name.removeprefix(f"{scheme}-")
            return Precision(weights, "int8" if scheme == "dynamic" else "float32", scheme)
    if name in SPLIT_NAMES["float"]:
        return Precision(name, name)
    return Precision(name, name, "static", calibration=Calibration("minmax", 32))


def chosen(name: str) -> tuple[Any, Any]:
    target, _, options = name.partition(":")
    spec = TARGETS[target]
    return spec, spec.params(**dict([options.split("=")])) if options else spec.params()


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Probe each target once."""
    found = {}
    for name in AS:
        spec, params = chosen(name)
        state = spec.probe(params)
        found[name] = (state, spec.capabilities(params) if state.available else None)
    return found


def material(spec: Any, tmp_path: Path) -> tuple[Model, Any, dict[str, np.ndarray]]:
    """Return a tiny model in a format that the target takes, the job to lower it in, and three items."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    if "torch" in spec.accepts:
        model = jobs.trained(tmp_path / "model", "cnn", epochs=1)
        return model, jobs.make_job(tmp_path / "job", "cnn"), {"image": jobs.digits(3).x[:3]}
    if "onnx" in spec.accepts:
        model = onnx_files.conv_net(tmp_path)
        return model, onnx_files.make_job(tmp_path / "job", model), onnx_files.items(model, 3)
    import test_target_tflite as lite

    path = lite._write(tmp_path / "source.tflite")
    lite.flatbuffer.rename_signature(path, {"args_0": "row", "output_0": "logits"})
    inputs = {"row": lite.TensorSpec("float32", (None, lite.WIDE))}
    model = Model("tflite", path, inputs, ("logits",), names={"first.weight": "net/first;1"})
    job = dataclasses.replace(onnx_files.make_job(tmp_path / "job", model), data=lite.Data())
    return model, job, {"row": lite.ITEMS[: lite.BATCH]}


def lowered_and_run(name: str, precision: Precision, tmp_path: Path) -> tuple[Any, np.ndarray, tuple[Any, ...]]:
    spec, params = chosen(name)
    model, job, feed = material(spec, tmp_path)
    batch = len(next(iter(feed.values())))
    options = Options(batch=batch)
    artifact = spec.lower(dataclasses.replace(model, precision=precision), params, options, job)
    session = spec.open(artifact, params, options, "placement")
    try:
        out = next(iter(session.run(feed).values()))
        return artifact, out, tuple(session.placements())
    finally:
        session.close()


def listed(kind: str) -> list[Any]:
    """Return (target, precision) of what is listed here, or of its gaps; heavy ones are slow tests."""
    found = []
    for name in AS:
        spec, params = chosen(name)
        if not spec.probe(params).available:
            continue
        can = spec.capabilities(params)
        marks = [pytest.mark.slow] if name == "torch:mode=compile" and kind == "precisions" else []
        found += [pytest.param(name, item, marks=marks, id=f"{name}-{item}") for item in getattr(can, kind)]
    return found


@pytest.mark.parametrize("name", AS)
def test_a_target_runs_or_says_what_is_missing(name: str, known: dict[str, Any]) -> None:
    state, can = known[name]
    if not state.available:
        assert state.reason
        return
    assert can is not None
    assert can.version
    assert can.float_precision in can.precisions
    assert not set(can.precisions) & set(can.gaps)
    assert can.channel_multiple >= 1
    assert all(text for text in (*can.precisions.values(), *can.gaps.values(), *can.op_gaps.values()))


@pytest.mark.parametrize(("name", "item"), listed("precisions"))
def test_a_listed_precision_is_lowered_and_run(name: str, item: str, tmp_path: Path) -> None:
    wanted = lowered_and_run(name, Precision(), tmp_path / "float")[1]
    try:
        artifact, got, placements = lowered_and_run(name, precision_named(item), tmp_path / "low")
    except Unsupported as refusal:
        if item == "binary" and "binary inputs" in refusal.message:
            pytest.skip("its 1-bit kernel needs a network with binary activations; tests of the target have one")
        raise
    # the others where only the file is in that precision, or only the values are
    assert artifact.realised in {item, f"weight-only-{item}", "float32" if item == "binary" else item}
    error = float(((wanted - got) ** 2).sum())
    floor_db = (
        -math.inf if item == "binary" else 5 if "int4" in item else 15
    )  # these weights were not trained for 1 bit
    assert math.isfinite(error)
    assert error == 0 or 10 * math.log10(float((wanted**2).sum()) / error) > floor_db
    if item in {"int8", "dynamic-int8"}:  # and not in float between conversions
        assert any(row.precision == "int8" and row.macs for row in placements)


@pytest.mark.parametrize(("name", "item"), listed("gaps"))
def test_a_gap_is_refused(name: str, item: str, tmp_path: Path) -> None:
    spec, params = chosen(name)
    model, job, _feed = material(spec, tmp_path)
    with pytest.raises((Unsupported, HarnessError)):
        spec.lower(dataclasses.replace(model, precision=precision_named(item)), params, Options(batch=3), job)


@pytest.mark.parametrize("name", AS)
def test_a_listed_device_is_where_it_runs(name: str, known: dict[str, Any], tmp_path: Path) -> None:
    state, can = known[name]
    if not state.available:
        pytest.skip(state.reason)
    if name == "torch:mode=compile":
        pytest.skip("compiling is covered by the slow tests")
    placements = lowered_and_run(name, Precision(), tmp_path)[2]
    seen = {row.device.lower() for row in placements}
    assert seen
    assert all(any(device.lower() in where for device in can.devices) for where in seen)


def test_features_are_read_by_the_kernels_names(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n")
    assert cpu_features(file) == ("avx2", "avx512", "avx512-vnni", "amx-int8")
    assert int8_dot_product(cpu_features(file)) == "AMX int8"
    file.write_text("Features\t: fp asimd asimddp i8mm\n")
    assert int8_dot_product(cpu_features(file)) == "Arm i8mm"
    file.write_text("flags : avx2\n")
    assert int8_dot_product(cpu_features(file)) == "no int8 dot product (AVX2 only)"
    assert cpu_features(tmp_path / "none") == ()
