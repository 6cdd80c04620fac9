from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness_torch
from harness.api import Job, Model, Precision, Split, TensorSpec, Unsupported

INPUTS = {"x": TensorSpec("float32", (None, 1, 4, 4))}


class Sums:
    """Is the sum of an image positive? Read-only arrays, as the cache gives them."""

    name, task, inputs, outputs, higher_is_better = "sums", "classification", INPUTS, ("logits",), True
    labelled, augment = True, None

    def split(self, name: str) -> Split:
        values = np.random.default_rng(len(name)).normal(size=(130, 1, 4, 4)).astype(np.float32)
        values.setflags(write=False)
        return Split({"x": values}, (values.sum((1, 2, 3)) > 0).astype(np.int64) if self.labelled else None)

    def loss(self, outputs: Any, labels: Any) -> Any:
        return nn.functional.cross_entropy(outputs, labels)

    def score(self, outputs: Any, labels: Any) -> Any:
        return (outputs["logits"].argmax(1) == labels)[:, None].astype(float)

    def aggregate(self, scores: Any) -> float:
        return float(scores.mean())


class Unlabelled(Sums):
    labelled = False


def make_job(out: Path, work: Any = None, *, seed: int = 0, progress: Any = None) -> Job:
    out.mkdir(exist_ok=True)
    work = work or Sums()
    return Job(out, seed, 1, work, work, progress or (lambda _share, _words: None), logging.getLogger("harness"))


def make_module() -> nn.Module:
    torch.manual_seed(0)
    norm, head = nn.BatchNorm2d(4), nn.Linear(16, 2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), head)


class Calls(nn.Module):
    """Call a function of tensors, or a layer whose first output counts."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


BATCH, STEPS, WIDTH = 2, 5, 8
SEQUENCE = torch.zeros(BATCH, STEPS, WIDTH)
HEADS = torch.zeros(BATCH, 2, STEPS, 4)


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), [torch.zeros(1, 3, 10, 12)], 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(6, 6, 5, groups=6, stride=2), [torch.zeros(1, 6, 11, 11)], 4 * 4 * 6 * 25),
        (nn.Conv1d(3, 8, 3), [torch.zeros(2, 3, 10)], 2 * 8 * 8 * 3 * 3),
        (nn.ConvTranspose2d(3, 8, 3, stride=2), [torch.zeros(1, 3, 10, 10)], 100 * 3 * 8 * 9),
        (nn.Linear(5, 7), [torch.zeros(2, 3, 5)], 2 * 3 * 5 * 7),
        (nn.GRU(8, 6, 2, batch_first=True, bidirectional=True), [SEQUENCE], 10 * 2 * 18 * ((8 + 6) + (12 + 6))),
        (nn.LSTM(8, 6, batch_first=True), [SEQUENCE], 10 * 24 * (8 + 6)),
        (nn.LSTM(8, 6, proj_size=3, batch_first=True), [SEQUENCE], 10 * (24 * (8 + 3) + 6 * 3)),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            [SEQUENCE],
            BATCH * (4 * STEPS * 64 + 2 * STEPS * STEPS * 8 + 2 * STEPS * 8 * 16),
        ),
        (
            Calls(nn.functional.scaled_dot_product_attention),
            [HEADS, HEADS, HEADS],
            2 * BATCH * 2 * STEPS * STEPS * 4,
        ),
        (Calls(lambda q, k: q @ k.transpose(-1, -2)), [HEADS, HEADS], BATCH * 2 * STEPS * STEPS * 4),
        (Calls(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), [SEQUENCE, SEQUENCE], BATCH * STEPS * STEPS * WIDTH),
        (nn.Sequential(nn.BatchNorm1d(STEPS), nn.ReLU()), [SEQUENCE], 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_macs_equal_the_closed_form(module: nn.Module, inputs: list[torch.Tensor], expected: int) -> None:
    assert harness_torch.macs(module, inputs) == expected


def test_macs_of_an_exported_program_equal_those_of_its_module() -> None:
    module = make_module().eval()
    example = harness_torch.example_inputs(INPUTS)
    program = torch.export.export(module, example).module()
    graph = torch.fx.GraphModule(program, program.graph)
    counted = Calls(lambda x: graph(x))
    assert harness_torch.macs(counted, example) == harness_torch.macs(module, example) == 4 * 4 * 9 + 16 * 2


def test_counting_restores_training_mode() -> None:
    module = make_module().train()
    harness_torch.macs(module, harness_torch.example_inputs(INPUTS))
    assert module.training


def test_parameters_count_shared_ones_once_and_zeros_apart() -> None:
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight[0] = 0
    shared = nn.Sequential(layer, layer)
    assert harness_torch.parameters(shared) == 9
    assert harness_torch.nonzero(shared) == 6


def test_call_runs_in_batches_and_names_outputs() -> None:
    values = np.arange(10, dtype=np.float32)[:, None]
    result = harness_torch.call(Calls(lambda x: (x, 2 * x)), {"x": values}, outputs=("one", "two"), batch_size=3)
    assert list(result) == ["one", "two"]
    np.testing.assert_array_equal(result["two"], 2 * values)


def test_call_is_in_evaluation_mode_and_puts_the_mode_back() -> None:
    module = make_module().train()
    values = Sums().split("test").inputs
    first, second = (harness_torch.call(module, values)["output0"] for _ in range(2))
    assert module.training
    np.testing.assert_array_equal(first, second)


def test_fit_learns(tmp_path: Path) -> None:
    module, job = make_module(), make_job(tmp_path)
    before = harness_torch.evaluate(module, job)
    harness_torch.fit(module, job, epochs=30, lr=1e-2)
    assert harness_torch.evaluate(module, job) > max(0.8, before)
    assert not module.training


def test_fit_gives_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        module, job = make_module(), make_job(tmp_path / name, seed=seed)
        harness_torch.fit(module, job, epochs=2)
        files.append(harness_torch.new_model(module, job, INPUTS, ("logits",)).path.read_bytes())
    assert files[0] == files[1] != files[2]


def test_fit_leaves_threads_determinism_and_memory_layout_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    module = make_module()
    harness_torch.fit(module, make_job(tmp_path), epochs=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert all(item.is_contiguous() for item in module.parameters())


def test_fit_reports_progress_and_calls_back(tmp_path: Path) -> None:
    shares: list[float] = []
    steps: list[tuple[int, int]] = []
    job = make_job(tmp_path, progress=lambda share, _words: shares.append(share))
    harness_torch.fit(make_module(), job, epochs=3, on_batch=lambda _module, step, total: steps.append((step, total)))
    assert shares[-1] == 1.0
    assert steps == [(i, 6) for i in range(1, 7)]  # 130 items in batches of 64; the short one is left out


def test_fit_of_no_epochs_changes_nothing(tmp_path: Path) -> None:
    module = make_module()
    before = [item.clone() for item in module.state_dict().values()]
    harness_torch.fit(module, make_job(tmp_path), epochs=0)
    assert all(torch.equal(old, new) for old, new in zip(before, module.state_dict().values(), strict=True))


def test_fit_stops_at_the_time_limit(tmp_path: Path) -> None:
    steps: list[int] = []
    harness_torch.fit(
        make_module(), make_job(tmp_path), epochs=50, max_seconds=1e-9, on_batch=lambda _m, step, _n: steps.append(step)
    )
    assert steps == [1]


def test_fit_takes_a_loss_of_ones_own_without_labels(tmp_path: Path) -> None:
    module, job = make_module(), make_job(tmp_path, Unlabelled())
    with pytest.raises(Unsupported, match="no labels to train with"):
        harness_torch.fit(module, job, epochs=1)
    harness_torch.fit(module, job, epochs=1, loss=lambda outputs, _labels, inputs: (outputs * inputs[0].sum()).mean())


def test_augmented_batches_reach_the_loss(tmp_path: Path) -> None:
    seen: list[float] = []

    def loss(outputs: torch.Tensor, _labels: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        seen.append(float(inputs[0].abs().max()))
        return outputs.square().mean()

    harness_torch.fit(make_module(), make_job(tmp_path), epochs=1, loss=loss, augment=lambda x, _generator: (x[0] * 0,))
    assert set(seen) == {0.0}


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    module, job = make_module().eval(), make_job(tmp_path)
    model = harness_torch.new_model(module, job, INPUTS, ("logits",), flags=("synthetic_weights",))
    assert (model.format, model.path, model.inputs) == ("torch", tmp_path / "model.pt", INPUTS)
    assert model.flags == ("synthetic_weights",)
    example = harness_torch.example_inputs(model.inputs, 3)
    torch.testing.assert_close(harness_torch.load(model)(*example), module(*example), rtol=0, atol=0)


def test_save_carries_over_and_may_change_precision(tmp_path: Path) -> None:
    module, job = make_module(), make_job(tmp_path)
    like = Model("torch", tmp_path / "old.pt", INPUTS, ("logits",), flags=("synthetic_weights",))
    packed = Precision(weights="binary", storage="packed")
    assert harness_torch.save(module, like, job, precision=packed).precision == packed
    assert harness_torch.save(module, like, job).flags == like.flags


def test_save_writes_the_effect(tmp_path: Path) -> None:
    module, job = make_module(), make_job(tmp_path)
    harness_torch.new_model(module, job, INPUTS, ("logits",))
    written = json.loads((tmp_path / "effect.json").read_text())
    assert written == {
        "parameters": 40 + 8 + 34,
        "nonzero_parameters": harness_torch.nonzero(module),
        "macs": 4 * 4 * 9 + 16 * 2,
        "selection_score": harness_torch.evaluate(module, job),
    }


def test_effect_without_labels_has_no_score(tmp_path: Path) -> None:
    assert "selection_score" not in harness_torch.effect(make_module(), make_job(tmp_path, Unlabelled()))


def test_load_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="'onnx'"):
        harness_torch.load(Model("onnx", tmp_path / "m.onnx", INPUTS, ("logits",)))


def test_example_inputs_follow_the_declaration() -> None:
    ids, values = harness_torch.example_inputs(
        {"ids": TensorSpec("int64", (None, 7)), "values": TensorSpec("float32", (None, None, 3))}, batch=4
    )
    assert (ids.dtype, tuple(ids.shape), int(ids.max())) == (torch.int64, (4, 7), 0)
    assert (values.dtype, tuple(values.shape)) == (torch.float32, (4, 1, 3))


def test_importing_the_library_loads_no_torch() -> None:
    code = "import sys, harness_torch, harness_workloads as w; w.harness_workloads(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
