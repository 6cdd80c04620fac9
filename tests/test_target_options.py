"""What can be chosen about ONNX Runtime and OpenVINO does what it says; and a user's own quantized file."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_files import CONV_MACS, STATIC, Items, conv_net, items, make_job
from workload_jobs import job as workload_job
from workload_jobs import workload

from harness.api import Artifact, Job, Model, Options, Precision, Split, Unsupported
from harness.plugins import load_registry

if "onnxruntime" not in load_registry().targets or "openvino" not in load_registry().targets:
    pytest.skip("needs both runtimes", allow_module_level=True)
pytest.importorskip("onnxruntime")
pytest.importorskip("nncf")
ORT = load_registry().targets["onnxruntime"].spec
OV = load_registry().targets["openvino"].spec


def lowered(spec: Any, model: Model, tmp_path: Path, wanted: Precision = Precision(), **chosen: Any) -> Artifact:  # noqa: B008
    tmp_path.mkdir(parents=True, exist_ok=True)
    given = dataclasses.replace(model, precision=wanted)
    return spec.lower(given, spec.params(**chosen), Options(), make_job(tmp_path / "lowered", model))


def run(spec: Any, artifact: Artifact, feed: dict[str, Any], **chosen: Any) -> tuple[np.ndarray, tuple[Any, ...], dict]:
    options = Options(batch=len(next(iter(feed.values()))))
    session = spec.open(artifact, spec.params(**chosen), options, "placement")
    try:
        return session.run(feed)["logits"], session.placements(), dict(session.effective())
    finally:
        session.close()


def kinds(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_int8_as_operators_has_no_conversions_between_layers_and_runs_in_integers(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    pairs, fused = (lowered(ORT, model, tmp_path / form, STATIC, int8_format=form) for form in ("qdq", "operators"))
    assert "QLinearConv" in kinds(fused.path)
    assert "QLinearConv" not in kinds(pairs.path)
    results = [run(ORT, artifact, items(model, 2)) for artifact in (pairs, fused)]
    for _outputs, placements, _effective in results:
        assert sum(row.macs or 0 for row in placements if row.precision == "int8") == sum(CONV_MACS.values())
    assert np.abs(results[0][0] - results[1][0]).max() < 0.05 * np.abs(results[0][0]).max()
    assert "QOperator" in fused.how


@pytest.mark.parametrize("kind", ["onnx", "ort"])
@pytest.mark.parametrize("wanted", [Precision(), STATIC])
def test_a_saved_graph_gives_the_same_outputs_and_places_all_macs(kind: str, wanted: Precision, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    plain, saved = (lowered(ORT, model, tmp_path / name, wanted, saved=name) for name in ("no", kind))
    assert saved.format == kind
    assert saved.path.suffix == f".{kind}"
    first, second = run(ORT, plain, items(model, 1)), run(ORT, saved, items(model, 1), mmap=kind == "ort")
    assert np.allclose(first[0], second[0], rtol=1e-3, atol=1e-4)
    # float kernels in the NCHWc layout are counted with the channels that they pad to
    assert sum(row.macs or 0 for row in second[1]) >= sum(CONV_MACS.values())


def test_a_provider_that_this_build_lacks_is_unavailable_by_name() -> None:
    found = ORT.probe(ORT.params(provider="qnn"))
    assert not found.available
    assert "QNNExecutionProvider" in found.reason
    assert "CPUExecutionProvider" in found.reason
    assert found.hint


def test_openvino_devices_are_those_that_it_sees() -> None:
    assert OV.probe(OV.params(device="AUTO")).available
    found = OV.probe(OV.params(device="NPU"))
    assert found.available or "sees" in found.reason


def test_auto_says_where_it_ran(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    _outputs, placements, effective = run(OV, lowered(OV, model, tmp_path), items(model, 1), device="AUTO")
    assert effective["devices"]
    assert all(row.device and row.device in effective["devices"] for row in placements)


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_a_hint_is_read_back(hint: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    effective = run(OV, lowered(OV, model, tmp_path), items(model, 1), hint=hint)[2]
    assert effective["performance_hint"].lower().endswith(hint)


def test_a_bfloat16_hint_is_seen_in_the_placements_where_the_cpu_has_it(tmp_path: Path) -> None:
    import openvino

    units = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    model = conv_net(tmp_path)
    _outputs, placements, effective = run(OV, lowered(OV, model, tmp_path), items(model, 1), precision="bf16")
    counted = {row.precision for row in placements if row.macs}
    assert ("bfloat16" in counted) == ("BF16" in units)
    if "BF16" in units:
        assert "bf16" in effective["precision_hint"]


def test_a_cached_model_is_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = conv_net(tmp_path)
    artifact = lowered(OV, model, tmp_path)
    loaded = [run(OV, artifact, items(model, 1), cache=True)[2]["loaded_from_cache"].lower() for _ in range(2)]
    assert loaded == ["false", "true"]


class Labelled(Items):
    def split(self, name: str) -> Split:
        labels = None if name == "calibration" else np.arange(len(self.inputs["image"])) % 10
        return Split(self.inputs, labels)


def labelled_job(tmp_path: Path, model: Model, seen: list[float]) -> Job:
    def aggregate(scores: np.ndarray) -> float:
        seen.append(float(scores.mean()))
        return seen[-1]

    view: Any = SimpleNamespace(
        inputs=model.inputs, outputs=model.outputs, higher_is_better=True, aggregate=aggregate,
        score=lambda outputs, labels: (outputs["logits"].argmax(1) == labels).astype(float)[:, None],
    )  # fmt: skip
    (tmp_path / "controlled").mkdir()
    data: Any = Labelled(items(model, 24))
    return Job(tmp_path / "controlled", 0, 1, data, view, lambda share, words: None, logging.getLogger("harness"))


def test_accuracy_control_measures_the_metric_of_the_selection_split(tmp_path: Path) -> None:
    model = dataclasses.replace(conv_net(tmp_path), precision=STATIC)
    seen: list[float] = []
    artifact = OV.lower(model, OV.params(accuracy_drop=0.5), Options(), labelled_job(tmp_path, model, seen))
    assert len(seen) >= 2  # of the float model, and of the quantized one
    assert "accuracy control" in artifact.how
    placements = run(OV, artifact, items(model, 1))[1]
    assert any(row.precision == "int8" and row.macs for row in placements)


def test_accuracy_control_needs_labels(tmp_path: Path) -> None:
    model = dataclasses.replace(conv_net(tmp_path), precision=STATIC)
    job = labelled_job(tmp_path, model, [])
    data: Any = SimpleNamespace(split=lambda name: Split(items(model, 4)))
    with pytest.raises(Unsupported, match="labelled selection split"):
        OV.lower(model, OV.params(accuracy_drop=0.1), Options(), dataclasses.replace(job, data=data))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_users_own_quantized_file_runs_as_it_is_and_is_its_own_anchor(name: str, tmp_path: Path) -> None:
    spec = {"onnxruntime": ORT, "openvino": OV}[name]
    source = conv_net(tmp_path)
    own = lowered(ORT, source, tmp_path / "made", STATIC)
    work = workload("file", path=str(own.path), data=None)
    model = work.spec.fit(work.params, workload_job(work, tmp_path / "fit"))
    assert (model.precision.name, model.precision.realise) == ("int8", "exact")
    artifact = lowered(spec, model, tmp_path / name, model.precision)
    assert artifact.realised == "int8"  # what the board shows as the anchor's precision
    got, placements, _effective = run(spec, artifact, items(source, 2))
    wanted = run(ORT, own, items(source, 2))[0]
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    assert sum(row.macs or 0 for row in placements if row.precision == "int8") > 0.9 * sum(CONV_MACS.values())
    with pytest.raises(Unsupported, match="quantized already"):
        lowered(spec, model, tmp_path / "again", STATIC)
