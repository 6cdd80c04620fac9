"""What a factory gives beside its module: labels against outputs, arrays of any kind, frozen parts, held masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workload_jobs import job, workload

import harness_torch
from harness.api import BadModel, Job, Unsupported
from harness_pruning.channels import CHANNELS, Params, compress, prune
from harness_workloads.labels import class_indices

HEAD = """
import numpy as np, torch
from torch import nn
from harness_workloads import UserWorkload

def net(classes=3):
    torch.manual_seed(0)
    first = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU()
    return nn.Sequential(*first, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, classes))

X = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
Y = X[:, :3].argmax(1)
"""


def made(folder: Path, body: str) -> Any:
    (folder / "own_data.py").write_text(f"{HEAD}\ndef make():\n    {body}\n")
    return workload("factory", target=f"{folder}/own_data.py:make")


@pytest.mark.parametrize(
    ("labels", "classes", "wanted"),
    [
        (np.array([0, 2, 1]), 3, [0, 2, 1]),
        (np.array([0, 1]), 5, [0, 1]),
        (np.array([[0], [2], [1]]), 3, [0, 2, 1]),
        (np.array(["cat", "ant", "dog"]), 3, [1, 0, 2]),
        (np.array(["cat", "ant", "dog"], dtype=object), 3, [1, 0, 2]),
        (np.array([10, 30, 20, 10]), 3, [0, 2, 1, 0]),
        (np.array([0, 7, 3]), 3, [0, 2, 1]),
        (np.array([-1, 1, -1]), 2, [0, 1, 0]),
        (np.array([True, False]), 2, [1, 0]),
        (np.array([0, 1, 1], dtype=object), 2, [0, 1, 1]),
    ],
)
def test_labels_become_class_indices(labels: np.ndarray, classes: int, wanted: list[int]) -> None:
    got = class_indices(labels, classes, "here")
    assert got.tolist() == wanted
    assert got.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.array([5, 6, 7]), 3, r"are 5, 6, 7, but the model has 3 outputs: class indices from 0 to 2 are due"),
        (np.array([1, 2, 3]), 3, r"are 1, 2, 3, but the model has 3 outputs"),
        (np.array([0, 1, 2, 3]), 3, r"are 0, 1, 2, 3, but the model has 3 outputs"),
        (np.array(["a", "b"]), 3, r"are a, b, but the model has 3 outputs"),
        (np.array([0, 1]), 1, r"but the model has 1 output:"),
        (np.array([0.5, 1.5]), 3, "class indices"),
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_one_sentence(labels: np.ndarray, classes: int, message: str) -> None:
    with pytest.raises(BadModel, match=message) as caught:
        class_indices(labels, classes, "here")
    assert "\n" not in caught.value.message


def test_labels_are_checked_before_anything_is_built(tmp_path: Path) -> None:
    work = made(tmp_path, "return UserWorkload(net(), {'x': X}, Y + 5, epochs=1)")
    with pytest.raises(BadModel, match="are 5, 6, 7, but the model has 3 outputs"):
        _ = work.inputs


def test_names_of_classes_are_learned(tmp_path: Path) -> None:
    work = made(
        tmp_path, "return UserWorkload(net(), {'x': X}, np.array(['c', 'a', 'b'])[Y].tolist(), epochs=40, lr=1e-2)"
    )
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path / "out"), "test") > 0.8
    assert set(work.spec.split(work.params, "test").labels) == {0, 1, 2}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return UserWorkload(net(), {'x': X, 'z': X})", "forward takes one argument; the inputs are x, z"),
        (
            "return UserWorkload(net(), {'x': X[:, :3]})",
            r"cannot run its own inputs \(x float32\[2, 3\]\): RuntimeError",
        ),
        ("return UserWorkload(net(), {'x': X}, Y[:-1])", "numbers of items differ in inputs: x 200, labels 199"),
        ("return UserWorkload(net().state_dict(), {'x': X})", "gives OrderedDict as its model"),
        ("return UserWorkload(net(), {'x': X}, outputs=('a', 'b'))", r"returns 1 outputs \(logits\), but 2 are named"),
        ("return UserWorkload(lambda **k: 1 / 0, {'x': X})", "raised ZeroDivisionError"),
    ],
)
def test_what_does_not_fit_is_one_sentence(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=message) as caught:
        _ = made(tmp_path, body).inputs
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", ["torch.from_numpy(X)", "X.astype('float64')", "X.tolist()"])
def test_arrays_of_any_kind_are_taken(value: str, tmp_path: Path) -> None:
    work = made(tmp_path, f"return UserWorkload(net(), {{'x': {value}}}, torch.from_numpy(Y))")
    assert {name: spec.dtype for name, spec in work.inputs.items()} == {"x": "float32"}
    assert work.spec.split(work.params, "test").inputs["x"].dtype == np.float32


@pytest.mark.parametrize("model", ["net", "lambda: net()", "lambda width=1.0: net()", "functools.partial(net, 3)"])
def test_functions_that_take_no_size_give_their_module(model: str, tmp_path: Path) -> None:
    work = made(tmp_path, f"import functools; return UserWorkload({model}, {{'x': X}}, Y)")
    model_ = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert harness_torch.parameters(harness_torch.load(model_)) == harness_torch.parameters(work.build())
    with pytest.raises(Unsupported, match="no other size"):
        work.build(depth=0.5)


FROZEN = (
    "n = net(); n[0].requires_grad_(False); n[1].requires_grad_(False); return UserWorkload(n, {'x': X}, Y, epochs=3)"
)


def test_frozen_parts_stay_as_they_are_in_training_and_fine_tuning(tmp_path: Path) -> None:
    work = made(tmp_path, FROZEN)
    untrained = dataclasses.replace(work, params=dataclasses.replace(work.params, epochs=0))
    before = harness_torch.load(work.spec.fit(untrained.params, job(untrained, tmp_path / "before"))).state_dict()
    fitted = work.spec.fit(work.params, job(work, tmp_path / "out"))
    after = harness_torch.load(fitted).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same >= {"0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"}
    assert not {"3.weight", "5.weight"} & same
    plain = job(work, tmp_path / "pruned")
    pruning = Job(plain.out, 0, 1, plain.data, work, plain.progress, plain.log, hardware=Eight())
    pruned = harness_torch.load(compress(CHANNELS, fitted, Params(epochs=1), pruning))
    frozen = [name for name, value in pruned.named_parameters() if not value.requires_grad]
    assert frozen == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert pruned[0].out_features == 8
    rows = {tuple(row.tolist()) for row in before["0.weight"]}
    assert {tuple(row.tolist()) for row in pruned[0].weight.detach()} <= rows


class Eight:
    channel_multiple = 8


def test_a_module_that_is_frozen_whole_cannot_be_trained(tmp_path: Path) -> None:
    work = made(tmp_path, "return UserWorkload(net().requires_grad_(False), {'x': X}, Y, epochs=3)")
    with pytest.raises(Unsupported, match="every parameter"):
        work.spec.fit(work.params, job(work, tmp_path / "out"))


def test_masks_hold_while_the_workload_trains(tmp_path: Path) -> None:
    masked = "from torch.nn.utils import prune; n = net(); prune.l1_unstructured(n[3], 'weight', amount=0.6); "
    work = made(tmp_path, masked + "return UserWorkload(n, {'x': X}, Y, epochs=3)")
    module = harness_torch.load(work.spec.fit(work.params, job(work, tmp_path / "out")))
    assert float((module[3].weight == 0).float().mean()) == pytest.approx(0.6, abs=0.01)
    assert not (module[0].weight == 0).any()


class Groups(torch.nn.Module):
    """Grouped convolutions, one of them transposed, one layer called twice, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.stem, self.g, self.twice = conv(1, 16, 3, padding=1), conv(16, 32, 3, padding=1, groups=4), conv(32, 32, 1)
        self.dw, self.up = conv(32, 32, 3, 2, 1, groups=32), torch.nn.ConvTranspose2d(32, 16, 2, 2, groups=2)
        self.mix, self.fc = conv(48, 24, 1), torch.nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        relu = torch.nn.functional.relu
        a = relu(self.g(relu(self.stem(x))))
        a = relu(self.twice(relu(self.twice(a))))
        y = torch.cat([a, relu(self.up(relu(self.dw(a))))], 1)
        return self.fc(relu(self.mix(y)).mean((2, 3)))


def test_grouped_convolutions_lose_the_same_channels_of_each_group() -> None:
    torch.manual_seed(0)
    module, x = Groups().eval(), torch.randn(2, 1, 16, 16)
    gone = {"stem": [0, 2, 5, 7, 8, 11, 12, 14], "mix": list(range(0, 24, 2)), "up": [1, 2, 3, 4, 9, 10, 11, 12]}
    gone["stem"] = [4 * part + index for part in range(4) for index in (1, 2)]
    gone["dw"] = gone["g"] = gone["twice"] = [8 * part + index for part in range(4) for index in (0, 3, 5, 6)]
    with torch.no_grad():
        for name, channels in gone.items():  # what gives nothing can go without a trace
            layer = module.get_submodule(name)
            layer.bias[channels] = 0
            if name == "up":
                layer.weight.view(2, 16, 8, 2, 2)[:, :, [1, 2, 3, 4]] = 0
            else:
                layer.weight[channels] = 0
        wanted = module(x)
        removed = prune(module, (x,), 0.5)
        assert {name: sorted(channels) for name, channels in removed.items()} == {
            name: gone[name] for name in ("stem", "dw", "up", "mix")
        }
        torch.testing.assert_close(module(x), wanted)
    assert (module.g.groups, module.g.in_channels, module.g.out_channels) == (4, 8, 16)
    assert (module.up.groups, tuple(module.up.weight.shape)) == (2, (16, 4, 2, 2))
    assert type(module.g) is torch.nn.Conv2d
