"""The losses against torch and against numpy, and who the student is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyMlp, compress, make_job, trained
from torch.nn import functional

import harness_distillation
from harness.api import Model, StepRecord, Unsupported
from harness_distillation.training import mixed_loss, soft_loss
from harness_torch import call, load, parameters

SPEC = next(iter(harness_distillation.harness_methods()))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("cnn"), epochs=4)


def _logits(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * 3, torch.randn(shape, generator=generator) * 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_soft_loss_equals_torch(temperature: float) -> None:
    student, teacher = _logits(12, 10)
    student.requires_grad_()
    expected = temperature**2 * functional.kl_div(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="batchmean"
    )
    value = soft_loss(student, teacher, temperature)
    assert torch.allclose(value, expected, rtol=1e-4)
    gradients = [torch.autograd.grad(item, student)[0] for item in (value, expected)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_soft_loss_in_closed_form() -> None:
    student, teacher = _logits(6, 4)
    p, q = (np.exp(item.double().numpy() / 3) for item in (teacher, student))
    p, q = (item / item.sum(1, keepdims=True) for item in (p, q))
    expected = 9 * (p * np.log(p / q)).sum(1).mean()
    assert float(soft_loss(student.double(), teacher.double(), 3)) == pytest.approx(expected, rel=1e-9)


def test_soft_loss_is_zero_only_for_the_teachers_own_answer() -> None:
    student, teacher = _logits(5, 10)
    assert float(soft_loss(teacher, teacher, 4)) == pytest.approx(0, abs=1e-6)
    assert float(soft_loss(teacher + 7, teacher, 4)) == pytest.approx(0, abs=1e-5)  # softmax ignores a shift
    assert float(soft_loss(student, teacher, 4)) > 0.1


def test_soft_loss_averages_over_every_position() -> None:
    student, teacher = _logits(3, 5, 7)
    flat = soft_loss(student.reshape(15, 7), teacher.reshape(15, 7), 2)
    assert torch.allclose(soft_loss(student, teacher, 2), flat)


def test_soft_loss_at_extreme_logits_is_finite() -> None:
    assert torch.isfinite(soft_loss(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]), 1.0))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_mixed_loss_of_classes(alpha: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    job, teacher, student = make_job(tmp_path), TinyCnn().eval(), TinyCnn().eval()
    split, items = job.data.split("train"), torch.tensor([5, 0, 17])
    inputs = torch.from_numpy(split.inputs["image"][items])
    loss = mixed_loss(teacher, job, temperature=4, alpha=alpha)(student(inputs), items, (inputs,))
    soft = 16 * functional.kl_div(
        (student(inputs) / 4).log_softmax(1), (teacher(inputs) / 4).softmax(1), reduction="batchmean"
    )
    hard = functional.cross_entropy(student(inputs), torch.from_numpy(split.labels[items]))
    assert torch.allclose(loss, alpha * soft + (1 - alpha) * hard, atol=1e-5)


def test_mixed_loss_of_values_is_squared_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    job, teacher, student = make_job(tmp_path, "mlp"), TinyMlp(), TinyMlp()
    split, items = job.data.split("train"), torch.tensor([3, 1])
    inputs = torch.from_numpy(split.inputs["row"][items])
    loss = mixed_loss(teacher, job, temperature=4, alpha=0.4)(student(inputs), items, (inputs,))
    given, taught = student(inputs).detach().numpy()[:, 0], teacher(inputs).detach().numpy()[:, 0]
    expected = 0.4 * ((given - taught) ** 2).mean() + 0.6 * ((given - split.labels[items]) ** 2).mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_a_student_of_half_the_width_is_derived(cnn: Model, tmp_path: Path) -> None:
    student = load(compress(SPEC, cnn, make_job(tmp_path), epochs=1))
    assert (student.stem.out_channels, load(cnn).stem.out_channels) == (4, 8)
    assert parameters(student) < parameters(load(cnn))


def _changed(model: Model) -> Model:
    step = StepRecord("compress", "channel-pruning", {}, 0, 0.0, "pruning", "1")
    return dataclasses.replace(model, lineage=(step,))


def test_a_model_that_a_step_changed_is_the_student(cnn: Model, tmp_path: Path) -> None:
    torch.save(TinyCnn(6), tmp_path / "six.pt")
    incoming = _changed(dataclasses.replace(cnn, path=tmp_path / "six.pt"))
    result = compress(SPEC, incoming, make_job(tmp_path / "jobs"), reference=cnn, epochs=1)
    assert load(result).stem.out_channels == 6
    assert result.lineage == incoming.lineage
    with pytest.raises(Unsupported, match="'channel-pruning' made"):
        compress(SPEC, incoming, make_job(tmp_path / "jobs"), reference=cnn, width=0.25)


def test_a_student_learns_what_the_teacher_says(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    inputs = job.data.split("train").inputs
    taught = call(load(cnn), inputs)["output0"].argmax(1)
    student = compress(SPEC, cnn, job, alpha=1.0, epochs=20, width=1.0)
    assert (call(load(student), inputs)["output0"].argmax(1) == taught).mean() > 0.8


def test_no_teacher_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="teacher"):
        SPEC.compress(cnn, SPEC.params(), make_job(tmp_path))
