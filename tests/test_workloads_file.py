from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from workload_jobs import job, workload

import harness_torch
from harness.api import BadModel, TensorSpec, Unsupported
from harness_workloads.nets.small import Perceptron

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


def onnx_file(path: Path, *, batch: int | str = "batch", location: str | None = None) -> Path:
    """A linear model x [batch, 4] -> logits [batch, 3]; its weights outside the file where a location is given."""
    weights = numpy_helper.from_array(WEIGHTS, "w")
    if location is not None:
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        weights.ClearField("raw_data")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def program_file(path: Path, *, dynamic: bool = True) -> Path:
    module = Perceptron(4, 8, 1, 3).eval()
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=shapes), path)
    return path


def items(count: int = 100) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {"x": generator.normal(size=(count, 4)).astype(np.float32), "y": generator.integers(0, 3, count)}


def data_file(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def file_workload(model: Path, data: Path | None = None) -> Any:
    return workload("file", path=str(model), data=None if data is None else str(data))


def split(work: Any, name: str) -> Any:
    return work.spec.split(work.params, name)


def test_an_onnx_file_with_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = onnx_file(tmp_path / "m.onnx")
    work = file_workload(source, data_file(tmp_path / "d.npz", **items()))
    with caplog.at_level(logging.INFO, logger="harness"):
        model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert (work.produces, work.labelled, work.outputs) == ("onnx", True, ("logits",))
    assert work.inputs == model.inputs == {"x": TensorSpec("float32", (None, 4))}
    wanted, got = (ReferenceEvaluator(str(path)).run(None, {"x": items()["x"]})[0] for path in (source, model.path))
    np.testing.assert_array_equal(got, wanted)
    assert model.flags == ()
    assert "calibration 20, selection 10, test 70" in caplog.text


def test_splits_of_given_data_are_disjoint_and_complete(tmp_path: Path) -> None:
    arrays = items()
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", **arrays))
    parts = [split(work, name) for name in ("calibration", "selection", "test")]
    rows = np.concatenate([part.inputs["x"] for part in parts])
    assert len(np.unique(rows, axis=0)) == len(rows) == 100
    for part in parts:
        for row, label in zip(part.inputs["x"], part.labels, strict=True):
            assert label == arrays["y"][np.flatnonzero((arrays["x"] == row).all(axis=1))[0]]
    with pytest.raises(Unsupported, match="no train split"):
        split(work, "train")


def test_equal_items_stay_in_one_split(tmp_path: Path) -> None:
    twice = np.repeat(items(30)["x"], 2, axis=0)
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", x=twice))
    parts = [{row.tobytes() for row in split(work, name).inputs["x"]} for name in ("calibration", "selection", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30


def test_data_of_one_item_again_and_again_are_measured_on(tmp_path: Path) -> None:
    same = np.repeat(items(1)["x"], 16, axis=0)
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", x=same))
    assert len(split(work, "test").inputs["x"]) == 16
    assert work.spec.fit(work.params, job(work, tmp_path / "out")).format == "onnx"


def test_calibration_items_given_apart_are_used_alone(tmp_path: Path) -> None:
    arrays = items(50)
    work = file_workload(
        onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", **arrays, calib_x=arrays["x"][:9] + 1)
    )
    np.testing.assert_array_equal(split(work, "calibration").inputs["x"], arrays["x"][:9] + 1)
    assert len(split(work, "test").labels) == 45


def test_without_labels_there_is_no_accuracy(tmp_path: Path) -> None:
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", x=items()["x"]))
    assert not work.labelled
    assert split(work, "test").labels is None


def test_without_data_inputs_are_seeded_and_flagged(tmp_path: Path) -> None:
    work = file_workload(onnx_file(tmp_path / "m.onnx"))
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert model.flags == ("random_calibration",)
    assert not work.labelled
    first, second = (split(work, name).inputs["x"] for name in ("calibration", "test"))
    assert first.shape == second.shape == (64, 4)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": items()["x"], "y": items()["y"]}, "has no array 'x'; it holds 'image', 'y'"),
        ({**items(), "extra": np.zeros(3)}, "'extra' that the model has no input for"),
        ({"x": items()["x"].astype(np.float64)}, "has dtype float64; the model takes float32"),
        ({"x": np.zeros((100, 5), np.float32)}, r"has shape \[100, 5\]; the model takes \[n, 4\]"),
        ({"x": np.zeros((100, 4, 1), np.float32)}, r"has shape \[100, 4, 1\]"),
        ({"x": items()["x"], "y": items()["y"][:-1]}, "holds 100 items but 99 labels"),
        ({"x": items()["x"], "y": items()["y"].astype(np.float32)}, "class indices of shape"),
        (
            {"x": items()["x"], "y": items()["y"] - 5},
            "are -5, -4, -3, but the model has 3 outputs: class indices from 0",
        ),
        ({"x": items()["x"][:5]}, "holds 5 items; at least 8"),
        ({"x": np.full((100, 4), np.nan, np.float32)}, "not finite"),
        ({"x": items()["x"], "y": np.array([{}] * 100)}, "pickled objects, which are refused"),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, arrays: Any, message: str) -> None:
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data_file(tmp_path / "d.npz", **arrays))
    with pytest.raises(BadModel, match=message) as caught:
        split(work, "test")
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "d.npz"
    data.write_bytes(b"not a zip")
    with pytest.raises(BadModel, match=r"no \.npz archive"):
        split(file_workload(onnx_file(tmp_path / "m.onnx"), data), "test")


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff\xff\xff")
    for path, message in (
        (tmp_path / "none.onnx", "cannot be read: No such file"),
        (tmp_path / "m.pb", "none of .onnx, .pt2, .tflite"),
        (broken, "no ONNX file"),
    ):
        with pytest.raises(BadModel, match=message):
            _ = file_workload(path).inputs
    with pytest.raises(BadModel, match="no model file is given"):
        _ = workload("file").inputs


def test_external_data_beside_the_model_goes_into_one_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    work = file_workload(onnx_file(tmp_path / "m.onnx", location="w.bin"))
    before = work.spec.fingerprint(work.params)
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    stored = onnx.load(model.path, load_external_data=False).graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(stored), WEIGHTS)
    (tmp_path / "w.bin").write_bytes((WEIGHTS + 1).tobytes())
    assert work.spec.fingerprint(work.params) != before


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/passwd", "link.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(BadModel, match="external data outside its folder"):
        _ = file_workload(onnx_file(folder / "m.onnx", location=location)).inputs


def test_an_exported_program_becomes_a_trainable_module(tmp_path: Path) -> None:
    work = file_workload(program_file(tmp_path / "m.pt2"), data_file(tmp_path / "d.npz", **items()))
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert (work.produces, list(work.inputs), work.outputs) == ("torch", ["x"], ("output",))
    module = harness_torch.load(model)
    (example,) = harness_torch.example_inputs(model.inputs, 5)
    original = torch.export.load(tmp_path / "m.pt2").module()
    torch.testing.assert_close(module(example), original(example))
    harness_torch.fit(module, job(work, tmp_path / "out"), epochs=1)
    again = harness_torch.save(module, model, job(work, tmp_path / "out"), name="again.pt")
    torch.testing.assert_close(harness_torch.load(again)(example), module(example))
    assert json.loads((tmp_path / "out" / "effect.json").read_text())["macs"] == 4 * 8 + 8 * 3


def test_a_program_of_a_fixed_batch_keeps_it(tmp_path: Path) -> None:
    work = file_workload(program_file(tmp_path / "m.pt2", dynamic=False))
    assert work.inputs == {"x": TensorSpec("float32", (2, 4))}


class Structured(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = torch.nn.Conv1d(1, 2, 1), torch.nn.BatchNorm1d(2), torch.nn.Linear(4, 3)
        self.w = torch.nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, scale: torch.Tensor) -> dict[str, Any]:
        y = self.bn(self.conv(x[:, None])).mean(1)
        return {"logits": self.fc(y) * scale, "aux": (torch.nn.functional.linear(x, self.w), None)}


def test_a_program_keeps_names_of_outputs_keywords_and_parameters(tmp_path: Path) -> None:
    module, batch = Structured().eval(), {0: torch.export.Dim("batch")}
    x, scale = torch.randn(2, 4), torch.randn(2, 1)
    shapes = {"x": batch, "mask": None, "scale": batch}
    exported = torch.export.export(module, (x, None), {"scale": scale}, dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "m.pt2")
    work = file_workload(tmp_path / "m.pt2")
    assert (list(work.inputs), work.outputs) == (["x", "scale"], ("logits", "aux_0"))
    again = harness_torch.load(work.spec.fit(work.params, job(work, tmp_path / "out")))
    wanted = module(x, scale=scale)
    torch.testing.assert_close(again(x, scale), (wanted["logits"], wanted["aux"][0]))
    names = {name: type(layer) for name, layer in again.named_modules()}
    assert names["conv"] is torch.nn.Conv1d
    assert names["bn"] is torch.nn.BatchNorm1d
    assert {"conv.weight", "fc.weight", "w.weight"} <= {name for name, _ in again.named_parameters()}


def test_a_program_with_pickled_payloads_is_refused(tmp_path: Path) -> None:
    source, changed = program_file(tmp_path / "m.pt2"), tmp_path / "changed.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            new.writestr(name, raw.replace(b'"use_pickle": false', b'"use_pickle": true', 1))
    with pytest.raises(BadModel, match="pickled objects, which are refused"):
        _ = file_workload(changed).inputs


def test_a_zip_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(BadModel, match=r"no program of torch\.export"):
        _ = file_workload(path).inputs


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    data = data_file(tmp_path / "d.npz", **items())
    work = file_workload(onnx_file(tmp_path / "m.onnx"), data)
    first = work.spec.fingerprint(work.params)
    data_file(data, **items(99))
    assert work.spec.fingerprint(work.params) != first
