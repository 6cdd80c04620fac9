from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.cli.main import call
from harness.plugins import load_registry


@pytest.fixture
def model(tmp_path):
    weights = numpy_helper.from_array(np.eye(8, 3, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    path = tmp_path / "my.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def dry_run(model, tmp_path, **arrays):
    data = tmp_path / "my.npz"
    np.savez(data, **arrays)
    return call(["bench", "--model", str(model), "--data", str(data), "--targets", "null", "--dry-run"])


def test_the_sizes_of_the_splits_are_told(model, tmp_path, capsys):
    images = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    assert dry_run(model, tmp_path, image=images, y=images[:, :3].argmax(1)) == 0
    talk = capsys.readouterr().err
    assert "60 calibration" in talk
    assert "test items" in talk


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.ones((300, 8), np.float32)}, "no array 'image'"),
        ({"image": np.ones((300, 9), np.float32)}, "has shape"),
        ({"image": np.array([{"a": 1}], dtype=object)}, "pickled"),
        ({"image": np.ones((300, 8), np.float32), "y": np.zeros(299, np.int64)}, "299 labels"),
    ],
)
def test_bad_data_is_refused_before_anything_is_built(model, tmp_path, capsys, arrays, words):
    assert dry_run(model, tmp_path, **arrays) == 2
    talk = capsys.readouterr().err
    assert words in talk
    assert "Traceback" not in talk


def test_an_output_that_cannot_be_written_is_one_sentence(model, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert call(["bench", "--model", str(model), "--targets", "null", "--out", str(blocked)]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_label_without_a_logit_is_refused():
    spec = load_registry(only={"workloads"}).workloads["digits-resnet8"].spec
    with pytest.raises(Exception, match="a label is 10, but the model has 10 outputs"):
        spec.score({"logits": np.zeros((2, 10), np.float32)}, np.array([3, 10]))
