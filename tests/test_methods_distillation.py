"""The losses against torch and against numpy, and who the student is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyGru, TinyMlp, TinyTransformer, compress, make_job, trained
from torch.nn import functional

import harness_distillation
from harness.api import Model, StepRecord, Unsupported
from harness_distillation.features import adapter, feature_loss, hidden_points, pairs
from harness_distillation.student import shrinking
from harness_distillation.teachers import (
    Multiplier,
    cluster_targets,
    clustered,
    distil_from,
    further_teachers,
    violation,
)
from harness_distillation.training import mixed_loss, soft_loss
from harness_torch import call, example_inputs, load, parameters

SPECS = {spec.name: spec for spec in harness_distillation.harness_methods()}
SPEC = SPECS["distillation"]


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


def test_where_batches_are_varied_the_teacher_sees_what_the_student_sees(cnn: Model, tmp_path: Path) -> None:
    job, teacher, seen = make_job(tmp_path), load(cnn), []

    def fainter(inputs: tuple[torch.Tensor, ...], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        seen.append(torch.rand(1, generator=generator).item())
        return tuple(value * seen[-1] for value in inputs)

    job = dataclasses.replace(job, workload=dataclasses.replace(job.workload, augment=fainter))
    image = torch.from_numpy(job.data.split("train").inputs["image"][:3]) * 0.1
    torch.manual_seed(0)
    student = TinyCnn().eval()
    loss = mixed_loss(teacher, job, temperature=4, alpha=1)(student(image), torch.arange(3), (image,))
    assert torch.allclose(loss, soft_loss(student(image), teacher(image), 4))
    for name in ("distillation", "feature-distillation", "progressive-distillation"):
        before = len(seen)
        (tmp_path / name).mkdir()
        compress(SPECS[name], cnn, dataclasses.replace(job, out=tmp_path / name), epochs=1)
        assert len(set(seen[before:])) > 1


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


# -- hidden layers


def test_feature_loss_equals_a_1x1_map_in_numpy() -> None:
    generator = torch.Generator().manual_seed(1)
    own, other = (torch.randn(2, channels, 3, 3, generator=generator) for channels in (2, 4))
    points = [_point(value) for value in (own, other)]
    adapt = adapter(*points)
    weight, bias = (value.detach().double().numpy() for value in (adapt.weight[:, :, 0, 0], adapt.bias))
    mapped = np.einsum("oi,nihw->nohw", weight, own.double().numpy()) + bias[:, None, None]
    expected = ((mapped - other.numpy()) ** 2).mean() / (other.numpy() ** 2).mean()
    assert feature_loss(own, other, adapt, maps=True).item() == pytest.approx(float(expected), rel=1e-5)


def _point(value: torch.Tensor):
    from harness_distillation.features import Point

    return Point("layer", torch.nn.Identity(), tuple(value.shape), maps=True)


def test_maps_of_different_size_are_averaged_down() -> None:
    own, other = torch.ones(1, 1, 4, 4), torch.arange(4.0).reshape(1, 1, 2, 2)
    value = feature_loss(own, other, torch.nn.Identity(), maps=True)
    assert float(value) == pytest.approx(float((1 - other).square().mean() / other.square().mean()))


@pytest.mark.parametrize("kind", [TinyCnn, TinyGru, TinyTransformer], ids=lambda kind: kind.__name__)
def test_layers_of_a_narrower_student_find_their_counterparts(kind: type, tmp_path: Path) -> None:
    example = example_inputs(make_job(tmp_path))
    student, teacher = kind(8), kind(16)
    found = pairs(hidden_points(student, example), hidden_points(teacher, example), 2)
    assert found
    assert all(own.name == other.name for own, other in found)
    assert all(own.channels <= other.channels for own, other in found)
    assert "head" not in {own.name for own, _other in found}


@pytest.mark.parametrize("workload", ["cnn", "gru", "transformer", "mlp"])
def test_features_are_learnt_and_no_adapter_stays(workload: str, tmp_path: Path) -> None:
    teacher = trained(tmp_path / "fit", workload, epochs=1)
    job = make_job(tmp_path / "jobs", workload)
    student = load(compress(SPECS["feature-distillation"], teacher, job, epochs=1, points=2))
    fresh = job.workload.build(width=0.5)
    assert {name: value.shape for name, value in student.state_dict().items()} == {
        name: value.shape for name, value in fresh.state_dict().items()
    }
    assert not any(module._forward_hooks for module in student.modules())


def test_hidden_layers_come_nearer_to_the_teachers(cnn: Model, tmp_path: Path) -> None:
    def unexplained(**params: float) -> float:
        """Return the share of a hidden layer's variance that the best linear map from the student's leaves."""
        spec = SPECS["feature-distillation"] if params else SPEC
        job = make_job(tmp_path)
        student = load(compress(spec, cnn, job, epochs=12, alpha=0.5, **params))
        inputs = torch.from_numpy(job.data.split("selection").inputs["image"])
        own, other = (_hidden(module, inputs) for module in (student, load(cnn)))
        design = np.c_[own, np.ones(len(own))]
        left = other - design @ np.linalg.lstsq(design, other, rcond=None)[0]
        return float((left**2).mean() / other.var(axis=0).mean())

    assert unexplained(beta=20.0) < unexplained()


def _hidden(module: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    kept = []
    hook = module.point.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    with torch.no_grad():
        module(inputs)
    hook.remove()
    return kept[0].permute(0, 2, 3, 1).reshape(-1, kept[0].shape[1]).double().numpy()


# -- a chain


def test_students_shrink_geometrically(cnn: Model, tmp_path: Path) -> None:
    chain = shrinking(cnn, 0.25, None, 2, load(cnn), make_job(tmp_path))
    assert [student.stem.out_channels for student in chain] == [4, 2]  # 8 x 0.25^(1/2), 8 x 0.25


def test_a_given_student_ends_the_chain(cnn: Model, tmp_path: Path) -> None:
    torch.save(TinyCnn(2), tmp_path / "two.pt")
    incoming = _changed(dataclasses.replace(cnn, path=tmp_path / "two.pt"))
    chain = shrinking(incoming, None, None, 3, load(cnn), make_job(tmp_path / "jobs"))
    widths = [student.stem.out_channels for student in chain]
    assert widths[-1] == 2
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2


def test_each_student_is_taught_by_the_one_before(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = []
    monkeypatch.setattr(
        "harness_distillation.training.distil",
        lambda student, teacher, _job, **_params: lessons.append((teacher, student)),
    )
    result = compress(SPECS["progressive-distillation"], cnn, make_job(tmp_path), students=3, width=0.25)
    assert len(lessons) == 3
    assert [lesson[0] for lesson in lessons[1:]] == [lesson[1] for lesson in lessons[:-1]]
    assert parameters(lessons[0][0]) == parameters(load(cnn))
    assert load(result).stem.out_channels == 2


# -- several teachers


def test_targets_are_means_over_the_cluster_and_the_teachers() -> None:
    outputs = np.array([[[0.0, 2], [2, 4], [10, 10]], [[2.0, 0], [4, 2], [20, 0]]])  # [teachers 2, items 3, outputs 2]
    targets = cluster_targets(outputs, np.array([1, 1, 0]))
    assert targets.tolist() == [[2, 2], [2, 2], [15, 5]]


def test_clusters_of_separate_heaps_are_those_heaps() -> None:
    chance = np.random.default_rng(0)
    heaps = np.repeat(np.eye(3) * 10, 20, axis=0) + chance.normal(scale=0.1, size=(60, 3))
    labels = clustered(heaps, 3, seed=0)
    assert [len(set(labels[at : at + 20])) for at in (0, 20, 40)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert (labels == clustered(heaps, 3, seed=0)).all()


def test_more_clusters_than_distinct_items_are_cut() -> None:
    assert len(set(clustered(np.array([[0.0], [0.0], [5.0]]), 8, seed=0))) == 2


def test_dual_ascent_on_hand_made_numbers() -> None:
    multiplier, found = Multiplier(1.0, 0.5), []
    for over in (0.4, -1.0, -3.0, 2.0):
        multiplier.ascend(over)
        found.append(multiplier.value)
    assert found == pytest.approx([1.2, 0.7, 0.0, 1.0])


def test_dual_ascent_finds_the_multiplier_of_a_small_problem() -> None:
    """min (x - 3)² subject to x² <= 1 has x = 1 and, from 2 (x - 3) + 2 lambda x = 0, lambda = 2."""
    multiplier = Multiplier(0.0, 0.1)
    for _ in range(500):
        x = 3 / (1 + multiplier.value)  # least of the Lagrangian
        multiplier.ascend(x**2 - 1)
    assert multiplier.value == pytest.approx(2, abs=1e-3)


def test_violation_is_the_relative_squared_distance_less_what_is_allowed() -> None:
    student, targets = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    assert float(violation(student, targets, 5.0, 0.1)) == pytest.approx((1 + 4) / 2 / 5 - 0.1)


def test_teachers_differ_by_their_seeds(tmp_path: Path) -> None:
    first, second = further_teachers(make_job(tmp_path), count=2, width=1.5, epochs=1, lr=1e-3)
    assert first.stem.out_channels == second.stem.out_channels == 12
    assert not torch.equal(first.stem.weight, second.stem.weight)


def test_the_multiplier_rises_while_the_student_is_far_and_falls_when_near(tmp_path: Path) -> None:
    job, teacher = make_job(tmp_path), TinyCnn(8)
    terms = {"clusters": None, "dual_lr": 0.1, "epochs": 1, "lr": 1e-4}
    far = distil_from(TinyCnn(4), [teacher, TinyCnn(8)], job, tolerance=0.0, **terms)
    near = distil_from(TinyCnn(4), [teacher, TinyCnn(8)], job, tolerance=1e6, **terms)
    assert far.value > 1
    assert near.value == 0


def test_several_teachers_teach(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    student = compress(
        SPECS["multi-teacher-distillation"], cnn, job, width=1.0, epochs=30, teacher_epochs=20, teachers=3, lr=1e-2
    )
    items = job.data.split("selection")
    assert (call(load(student), items.inputs)["output0"].argmax(1) == items.labels).mean() > 0.6


@pytest.mark.parametrize("name", [name for name in SPECS if name != "distillation"])
def test_no_teacher_is_refused_by_all(name: str, cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=f"{name} needs the trained model"):
        SPECS[name].compress(cnn, SPECS[name].params(), make_job(tmp_path))
