from __future__ import annotations

import json

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


def test_a_method_whose_items_are_not_there_is_a_row_of_the_plan(model, tmp_path, capsys):
    images = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    data = tmp_path / "my.npz"
    np.savez(data, image=images, y=images[:, :3].argmax(1), calib_image=images[:0])
    asked = ["--methods", "int8,dynamic-int8", "--targets", "onnxruntime"]
    command = ["bench", "--model", str(model), "--data", str(data), *asked, "--dry-run", "--json"]
    assert call(command) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    found = {cell["labels"]["method"]: cell["impossible"] for cell in cells}
    assert found["baseline"] is found["dynamic-int8"] is None
    assert found["int8"]["status"] == "not-applicable"
    assert found["int8"]["reason"] == (
        "method 'int8' needs calibration items, and there are none: the arrays calib_* of the data file hold no items"
    )
    assert next(cell for cell in cells if cell["labels"]["method"] == "int8")["predicted_s"] == 0


FACTORY = """
import numpy as np, torch
from harness.api import Split
from harness_workloads import UserWorkload


def items(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 8)).astype("float32")
    return Split({"image": x}, (x.sum(1) > 0).astype("int64"))


def network(*, width=1.0, depth=1.0):
    inner = int(16 * width)
    return torch.nn.Sequential(torch.nn.Linear(8, inner), torch.nn.ReLU(), torch.nn.Linear(inner, 2))


def make():
    sizes = {"train": 64, "calibration": 32, "selection": 32, "test": 40} | EMPTY
    splits = {name: items(count, seed) for seed, (name, count) in enumerate(sizes.items())}
    return UserWorkload(model=network, splits=splits, epochs=EPOCHS)
"""


@pytest.mark.parametrize(
    ("empty", "epochs", "refused", "fine"),
    [
        ("calibration", 1, "int8,qat,mixed-precision,weight-equalization+int8,channel-pruning+bias-correction", "fp16"),
        ("selection", 1, "mixed-precision", "qat"),
        ("train", 0, "qat,distillation,ternary:epochs=1", "int8"),
    ],
)
def test_pipelines_of_ones_own_model_without_items_are_refused(
    empty, epochs, refused, fine, tmp_path, capsys, monkeypatch
):
    module = f"without_{empty}"
    source = FACTORY.replace("EMPTY", repr({empty: 0})).replace("EPOCHS", str(epochs))
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ["--methods", f"{refused},{fine}", "--targets", "onnxruntime", "--dry-run", "--json"]
    assert call(["bench", "--workload", f"{module}:make", *asked]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["labels"]["method"] for cell in cells if cell["impossible"]] == refused.split(",")
    for cell in cells:
        if cell["impossible"]:
            assert cell["impossible"]["status"] == "not-applicable"
            assert f"the {empty} split of workload 'factory' is empty" in cell["impossible"]["reason"]


def test_an_output_that_cannot_be_written_is_one_sentence(model, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert call(["bench", "--model", str(model), "--targets", "null", "--out", str(blocked)]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_label_without_a_logit_is_refused():
    spec = load_registry(only={"workloads"}).workloads["digits-resnet8"].spec
    with pytest.raises(Exception, match="a label is 10, but the model has 10 outputs"):
        spec.score({"logits": np.zeros((2, 10), np.float32)}, np.array([3, 10]))


def fixed(path, shape, out):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [8, 3], np.ones(24, np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["o"])],
        "fixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, out)],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_model_of_a_fixed_batch_is_planned_at_it_and_another_is_refused(tmp_path, capsys):
    model = fixed(tmp_path / "four.onnx", [4, 8], [4, 3])
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    words = ["bench", "--model", str(model), "--data", str(tmp_path / "d.npz"), "--targets", "null", "--dry-run"]
    assert call([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert {cell["cell"]["options"]["batch"] for cell in json.loads(told.out)["cells"]} == {4}
    assert "4 in each call, as the model is fixed to" in told.err
    assert call([*words, "--batch", "8"]) == 2
    talk = capsys.readouterr().err
    assert "takes 4 items in a call, not 8" in talk
    assert "--batch 4" in talk


def test_axes_states_and_the_task_are_said_on_the_command_line(tmp_path, capsys):
    model = fixed(tmp_path / "m.onnx", [5, 6, 8], [5, 6, 3])
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(5, 60, 8)).astype(np.float32))
    words = ["bench", "--model", str(model), "--data", str(tmp_path / "d.npz"), "--targets", "null", "--dry-run"]
    assert call(words) == 2
    assert "--axis NAME=1" in capsys.readouterr().err
    assert call([*words, "--axis", "x=1", "--task", "none", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert cells[0]["cell"]["workload"]["params"]["axes"] == "x=1"
    assert cells[0]["cell"]["options"]["batch"] == 6
    assert call([*words, "--axis", "x=1", "--state", "x=o"]) == 2
    assert "it is one or the other" in capsys.readouterr().err
    assert call(["bench", "--axis", "x=1", "--dry-run"]) == 2
    assert "no --model is given" in capsys.readouterr().err
