"""The classification graphs that ship in the onnx package: opset 9, made weights, weights among the inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from workload_jobs import job, workload

from harness.api import BadModel, TensorSpec
from harness_onnx.normal import OLDEST, brought_up_to_date, has_made_weights

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = sorted(path.stem for path in LIGHT.glob("light_*.onnx"))
SMALL = ["light_shufflenet", "light_squeezenet"]


def brought(name: str, tmp_path: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    work = workload("file", path=str(LIGHT / f"{name}.onnx"), data=None)
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    return onnx.load(model.path), model.flags


def test_there_are_nine() -> None:
    assert len(NAMES) == 9


@pytest.mark.parametrize("name", SMALL)
def test_a_light_graph_is_brought_up_to_date_and_flagged(name: str, tmp_path: Path) -> None:
    before = onnx.load(LIGHT / f"{name}.onnx")
    model, flags = brought(name, tmp_path)
    assert "synthetic_weights" in flags
    assert model.opset_import[0].version == OLDEST
    assert len(model.graph.input) == 1 < len(before.graph.input)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


@pytest.mark.parametrize("name", SMALL)
def test_the_outputs_are_those_of_the_file_as_it_was(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, _flags = brought(name, tmp_path)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    image = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    results = []
    for raw in ((LIGHT / f"{name}.onnx").read_bytes(), model.SerializeToString()):
        session = runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {model.graph.input[0].name: image})[0])
    assert np.allclose(*results, rtol=1e-5, atol=1e-7)


def old_file(path: Path, op: str = "Relu") -> Path:
    nodes = [helper.make_node(op, ["gpu_0/x"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("gpu_0/x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos[:1], infos[1:]), opset_imports=[helper.make_opsetid("", 9)], ir_version=3
    )
    path.write_bytes(model.SerializeToString())
    return path


def test_an_old_file_with_trained_weights_is_not_flagged(tmp_path: Path) -> None:
    model = brought_up_to_date(onnx.load(old_file(tmp_path / "m.onnx")), tmp_path / "m.onnx")
    assert not has_made_weights(model)
    assert model.opset_import[0].version == OLDEST


def test_an_operator_without_a_conversion_is_named(tmp_path: Path) -> None:
    file = old_file(tmp_path / "m.onnx", "NoSuchOp")
    with pytest.raises(BadModel, match=r"opset 9.*13"):
        brought_up_to_date(onnx.load(file), file)


def test_an_input_name_with_a_slash_is_one_file(tmp_path: Path) -> None:
    from harness.feeds import shard_name
    from harness.measure.inputs import open_items

    np.save(tmp_path / shard_name("gpu_0/x"), np.zeros((3, 4), np.float32))
    assert open_items(tmp_path, {"gpu_0/x": TensorSpec("float32", (None, 4))})["gpu_0/x"].shape == (3, 4)
    work = workload("file", path=str(old_file(tmp_path / "m.onnx")), data=None)
    assert work.inputs == {"gpu_0/x": TensorSpec("float32", (1, 4))}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_least_seven_of_nine_are_timed_on_two_runtimes(tmp_path: Path) -> None:
    """The others are rows with a reason."""
    files = " ".join(f"file:path={LIGHT / name}.onnx" for name in NAMES)
    command = [sys.executable, "-m", "harness", "bench", "--workloads", files, "--methods", "baseline",
               "--targets", "onnxruntime,openvino", "--out", str(tmp_path)]  # fmt: skip
    subprocess.run(command, check=False, capture_output=True, timeout=1700)
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/cells/*.json")]
    for target in ("onnxruntime", "openvino"):
        rows = [record for record in records if record["labels"]["target"] == target]
        fine = [record for record in rows if record["status"] == "ok"]
        assert len(rows) == 9
        assert len(fine) >= 7
        assert all(record["latency"]["p50_ns"]["point"] > 0 for record in fine)
        assert all("synthetic_weights" in record["flags"] for record in fine)
        assert all(record["reason"] for record in rows if record["status"] != "ok")
