"""Workloads on the UCI handwritten digits that ship with scikit-learn: images, sequences and pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.api import Job, MissingDependency, Model, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.augment import moved, noisy
from harness_workloads.scoring import accuracy, correct, cross_entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SIZES: Mapping[SplitName, int] = {"test": 450, "selection": 150, "calibration": 100, "train": 1097}
PAIRS: Mapping[SplitName, int] = {"test": 2000, "selection": 500, "calibration": 256, "train": 4000}
OUTPUTS = ("logits",)


@dataclass(frozen=True)
class ImageParams:
    """Training of ``digits-resnet8``."""

    epochs: int = param(10, "passes over the training split", ge=0)
    lr: float = param(4e-3, "peak learning rate", gt=0)
    noise: float = param(0.0, "deviation of noise on the test items, as share of their own", ge=0)


@dataclass(frozen=True)
class SequenceParams:
    """Training of ``digits-gru``."""

    epochs: int = param(30, "passes over the training split", ge=0)
    lr: float = param(1e-2, "peak learning rate", gt=0)
    hidden: int = param(64, "width of the recurrent layer", ge=4)
    noise: float = param(0.0, "deviation of noise on the test items, as share of their own", ge=0)


@dataclass(frozen=True)
class PairParams:
    """Training of ``digits-pairs``."""

    epochs: int = param(6, "passes over the training split", ge=0)
    lr: float = param(4e-3, "peak learning rate", gt=0)


@lru_cache(maxsize=1)
def _rows() -> tuple[Array, Array]:
    """Return all digits [1797, 8, 8] as 0..1, shuffled once with a fixed seed, and their classes."""
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependency(
            "the digits are read from scikit-learn, which is not installed",
            hint="pip install 'compression-harness[workloads]'",
        ) from error
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).reshape(-1, 8, 8).astype(np.float32), classes[order].astype(np.int64)


def rows(name: SplitName) -> tuple[Array, Array]:
    """Return the 8x8 images of a split, 0..1, and their classes."""
    images, classes = _rows()
    start = 0
    for split, size in SIZES.items():
        if split == name:
            break
        start += size
    return images[start : start + SIZES[name]], classes[start : start + SIZES[name]]


def enlarge(images: Array, side: int) -> Array:
    """Enlarge square images [n, s, s] to [n, side, side] by bilinear interpolation with aligned pixel areas."""
    import numpy as np

    size = images.shape[-1]
    at = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), size - 2)
    weights = np.zeros((side, size), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), low + 1] = at - low
    return np.asarray(weights @ images @ weights.T, np.float32)


def _normal(images: Array) -> Array:
    return (images - 0.3) / 0.38  # about the mean and deviation of all pixels


@lru_cache(maxsize=8)
def _images(name: SplitName) -> Split:
    images, classes = rows(name)
    return Split({"image": _normal(enlarge(images, 32))[:, None]}, classes)


@lru_cache(maxsize=8)
def _sequences(name: SplitName) -> Split:
    images, classes = rows(name)
    return Split({"rows": _normal(images)}, classes)


@lru_cache(maxsize=8)
def _pairs(name: SplitName) -> Split:
    """Draw pairs of digits of one split, half of them of one class; 16x16 pixels."""
    import numpy as np

    images, classes = rows(name)
    images = _normal(enlarge(images, 16))[:, None]
    generator = np.random.default_rng(list(SIZES).index(name))
    first = generator.integers(len(images), size=PAIRS[name])
    same = np.arange(PAIRS[name]) % 2
    second = np.empty_like(first)
    for digit in range(10):
        for equal in (0, 1):
            where = (classes[first] == digit) & (same == equal)
            pool = np.flatnonzero((classes == digit) == bool(equal))
            second[where] = generator.choice(pool, size=where.sum())
    return Split({"a": images[first], "b": images[second]}, same.astype(np.int64))


def _resnet8(_params: ImageParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.resnet import ResNet8

    return ResNet8(1, 10, width=width, depth=depth)


def _gru(params: SequenceParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.sequence import RecurrentClassifier

    return RecurrentClassifier(8, max(4, round(params.hidden * width)), max(1, round(depth)), 10)


def _pair(_params: PairParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.small import PairNetwork

    return PairNetwork(width=max(4, round(16 * width)), blocks=max(1, round(3 * depth)))


def _image_inputs(_params: ImageParams) -> dict[str, TensorSpec]:
    return {"image": TensorSpec("float32", (None, 1, 32, 32))}


def _sequence_inputs(_params: SequenceParams) -> dict[str, TensorSpec]:
    return {"rows": TensorSpec("float32", (None, 8, 8))}


def _pair_inputs(_params: PairParams) -> dict[str, TensorSpec]:
    return dict.fromkeys(("a", "b"), TensorSpec("float32", (None, 1, 16, 16)))


def _train(module: Any, params: Any, job: Job, **more: Any) -> Model:
    import harness_torch

    harness_torch.fit(module, job, epochs=params.epochs, lr=params.lr, **more)
    return harness_torch.new_model(module, job, job.workload.inputs, OUTPUTS)


def _fresh(job: Job) -> Any:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    return job.workload.build()


def _fit_images(params: ImageParams, job: Job) -> Model:
    return _train(_fresh(job), params, job, augment=job.workload.augment)


def _fit_plain(params: SequenceParams | PairParams, job: Job) -> Model:
    return _train(_fresh(job), params, job)


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""
    yield WorkloadSpec(
        name="digits-resnet8",
        modality="image",
        summary="MLPerf Tiny's ResNet-8 on handwritten digits, enlarged to 32x32: the quick demo",
        params=ImageParams,
        inputs=_image_inputs,
        outputs=OUTPUTS,
        fit=_fit_images,
        split=lambda params, name: noisy(_images(name), name, params.noise),
        score=correct,
        aggregate=accuracy,
        model=_resnet8,
        loss=cross_entropy,
        augment=moved,
        default=True,
    )
    yield WorkloadSpec(
        name="digits-gru",
        modality="sequence",
        summary="a GRU that reads handwritten digits row by row: 8 steps of 8 pixels",
        params=SequenceParams,
        inputs=_sequence_inputs,
        outputs=OUTPUTS,
        fit=_fit_plain,
        split=lambda params, name: noisy(_sequences(name), name, params.noise),
        score=correct,
        aggregate=accuracy,
        model=_gru,
        loss=cross_entropy,
    )
    yield WorkloadSpec(
        name="digits-pairs",
        modality="pairs",
        summary="a network of two inputs: do these two images show the same digit",
        params=PairParams,
        inputs=_pair_inputs,
        outputs=OUTPUTS,
        fit=_fit_plain,
        split=lambda _params, name: _pairs(name),
        score=correct,
        aggregate=accuracy,
        model=_pair,
        loss=cross_entropy,
    )
