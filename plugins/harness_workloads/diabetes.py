"""A tabular regression: the progression of diabetes from ten measurements, as it ships with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.api import Job, MissingDependency, Model, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.scoring import mean_squared_error, root_mean, squared_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SIZES: Mapping[SplitName, int] = {"test": 132, "selection": 55, "calibration": 55, "train": 200}
MEAN, DEVIATION = 152.0, 77.0  # of the score that is predicted; the model sees and gives it standardised
OUTPUTS = ("value",)


@dataclass(frozen=True)
class Params:
    """Training of ``diabetes-mlp``."""

    epochs: int = param(30, "passes over the training split", ge=0)
    lr: float = param(2e-3, "peak learning rate", gt=0)
    hidden: int = param(64, "width of the two hidden layers", ge=4)


@lru_cache(maxsize=1)
def _rows() -> tuple[Array, Array]:
    import numpy as np

    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise MissingDependency(
            "the diabetes data is read from scikit-learn, which is not installed",
            hint="pip install 'compression-harness[workloads]'",
        ) from error
    rows, target = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows = rows[order] / np.sqrt(np.mean(rows**2, axis=0))  # the columns come centred, with a common small norm
    return rows.astype(np.float32), ((target[order] - MEAN) / DEVIATION).astype(np.float32)[:, None]


@lru_cache(maxsize=8)
def _split(name: SplitName) -> Split:
    rows, target = _rows()
    names = list(SIZES)
    start = sum(SIZES[other] for other in names[: names.index(name)])
    return Split({"rows": rows[start : start + SIZES[name]]}, target[start : start + SIZES[name]])


def score(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return each item's squared error in the data's own unit: shape [n, 1]."""
    return squared_error(outputs, labels) * DEVIATION**2


def _model(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.small import Perceptron

    return Perceptron(10, max(4, round(params.hidden * width)), max(1, round(2 * depth)), 1)


def _fit(params: Params, job: Job) -> Model:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    module = job.workload.build()
    harness_torch.fit(module, job, epochs=params.epochs, lr=params.lr, weight_decay=0.1)
    return harness_torch.new_model(module, job, job.workload.inputs, OUTPUTS)


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workload of this module."""
    yield WorkloadSpec(
        name="diabetes-mlp",
        modality="tabular",
        summary="a multilayer perceptron that predicts the progression of diabetes (lower error is better)",
        params=Params,
        inputs=lambda _params: {"rows": TensorSpec("float32", (None, 10))},
        outputs=OUTPUTS,
        fit=_fit,
        split=lambda _params, name: _split(name),
        task="regression",
        metric="RMSE",
        unit="points",
        higher_is_better=False,
        interval="bootstrap",
        score=score,
        aggregate=root_mean,
        model=_model,
        loss=mean_squared_error,
    )
