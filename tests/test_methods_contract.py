"""What holds for every method on every kind of tiny model: shapes, finiteness, seeds, order, parameters."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import WORKLOADS, compress, make_job, trained

from harness import params
from harness.api import HarnessError, MethodSpec, Model, PlanError, Split, Unsupported
from harness_torch import call, load

PLUGINS = ("baseline", "quantization", "pruning", "binarization", "decomposition", "distillation")
SPECS: dict[str, MethodSpec[Any]] = {
    spec.name: spec for name in PLUGINS for spec in importlib.import_module(f"harness_{name}").harness_methods()
}
OWN_TESTS = {"bias-correction", "mixed-precision", "weight-equalization"}
TORCH = sorted(name for name, spec in SPECS.items() if spec.consumes == {"torch"} and name not in OWN_TESTS)
TRAINING = [name for name in TORCH if "epochs" in {info.name for info in params.describe(SPECS[name].params)}]
NOTHING_THERE = {  # what a tiny model has no layer for
    ("batchnorm-folding", "gru"), ("batchnorm-folding", "transformer"), ("batchnorm-folding", "mlp"),
    ("cp", "gru"), ("cp", "transformer"), ("cp", "mlp"),
    ("filter-pruning", "gru"), ("filter-pruning", "transformer"), ("filter-pruning", "mlp"),
    ("head-pruning", "cnn"), ("head-pruning", "gru"), ("head-pruning", "mlp"),
    ("tucker", "gru"), ("tucker", "transformer"), ("tucker", "mlp"),
}  # fmt: skip


def _fast(name: str) -> dict[str, Any]:
    # by budget: whether 90 % of the energy of so small a layer takes fewer numbers depends on how it was trained
    ranks = {"budget": 0.5} if name == "low-rank" else {}
    return ranks | ({"epochs": 1} if name in TRAINING else {})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {name: trained(tmp_path_factory.mktemp(name), name, epochs=2) for name in WORKLOADS}


def _state(model: Model) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in load(model).state_dict().items()}


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
@pytest.mark.parametrize("name", TORCH)
def test_result_is_the_same_kind_of_function(
    name: str, workload: str, models: dict[str, Model], tmp_path: Path
) -> None:
    job = make_job(tmp_path, workload)
    if (name, workload) in NOTHING_THERE:
        with pytest.raises(Unsupported, match=f"^{name} found no"):
            compress(SPECS[name], models[workload], job, **_fast(name))
        return
    inputs = job.data.split("selection").inputs
    before = call(load(models[workload]), inputs)
    result = compress(SPECS[name], models[workload], job, **_fast(name))
    after = call(load(result), inputs)
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    assert all(np.isfinite(value).all() for value in after.values())
    changed = any(not np.array_equal(after[key], before[key]) for key in after)
    assert changed == (name != "split")  # which computes the same, bit by bit
    assert result.path.is_relative_to(job.out)
    assert (result.inputs, result.outputs) == (models[workload].inputs, models[workload].outputs)


@pytest.mark.parametrize(
    ("name", "workload"),
    [
        (name, workload)
        for name in TRAINING
        for workload in ("transformer",) * (name == "head-pruning") or ("cnn", "gru")
        if (name, workload) not in NOTHING_THERE
    ],
)
def test_same_seed_gives_the_same_bytes(name: str, workload: str, models: dict[str, Model], tmp_path: Path) -> None:
    results = [
        _state(compress(SPECS[name], models[workload], make_job(tmp_path, workload, seed=seed), **_fast(name)))
        for seed in (3, 3, 4)
    ]
    assert results[0] == results[1]
    assert results[0] != results[2]


def _home(name: str) -> str:
    return "transformer" if name == "head-pruning" else "cnn"


@pytest.mark.parametrize("name", TORCH)
def test_the_incoming_file_is_left_alone(name: str, models: dict[str, Model], tmp_path: Path) -> None:
    model = models[_home(name)]
    before = model.path.read_bytes()
    compress(SPECS[name], model, make_job(tmp_path, _home(name)), **_fast(name))
    assert model.path.read_bytes() == before


@pytest.mark.parametrize("name", TRAINING)
def test_training_data_without_labels_is_refused(name: str, models: dict[str, Model], tmp_path: Path) -> None:
    job = make_job(tmp_path, _home(name))
    data = dataclasses.replace(job.data, y=None)  # type: ignore[type-var]  # TinyData
    with pytest.raises(Unsupported, match="labels"):
        compress(SPECS[name], models[_home(name)], dataclasses.replace(job, data=data), **_fast(name))


@pytest.mark.parametrize("name", TRAINING)
def test_empty_training_data_is_refused(name: str, models: dict[str, Model], tmp_path: Path) -> None:
    job = make_job(tmp_path, _home(name))

    class Empty:
        def split(self, which: str) -> Split:
            split = job.data.split(which)  # type: ignore[arg-type]  # a literal
            if which != "train":
                return split
            return Split({key: value[:0] for key, value in split.inputs.items()}, split.labels[:0])

    with pytest.raises(HarnessError, match="train"):
        compress(SPECS[name], models[_home(name)], dataclasses.replace(job, data=Empty()), **_fast(name))


@pytest.mark.parametrize("name", sorted(SPECS))
def test_declarations(name: str) -> None:
    spec = SPECS[name]
    assert len(spec.summary) <= 70
    assert not spec.summary.endswith(".")
    assert params.problem(spec.params) is None
    assert all(info.help for info in params.describe(spec.params))


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("magnitude-pruning", {"ratio": "1.0"}, "0 < x < 1"),
        ("magnitude-pruning", {"ratio": "nan"}, "0 < x < 1"),
        ("magnitude-pruning", {"epochs": "-1"}, "0 <= x"),
        ("magnitude-pruning", {"scope": "layer"}, "one of global, local"),
        ("channel-pruning", {"ratio": "0"}, "0 < x < 1"),
        ("channel-pruning", {"importance": "l3"}, "one of l1, l2, linf, snr, gradient, taylor, random"),
        ("magnitude-pruning", {"threshold": "-0.1"}, "0 < x"),
        ("n-m-pruning", {"n": "0"}, "1 <= x"),
        ("weight-clipping", {"percentile": "101"}, "0 < x <= 100"),
        ("low-rank", {"rank": "0"}, "1 <= x"),
        ("tucker", {"energy": "1.2"}, "0 < x <= 1"),
        ("cp", {"budget": "1.0"}, "0 < x < 1"),
        ("head-pruning", {"ratio": "1.0"}, "0 < x < 1"),
        ("binarization", {"epochs": "-1"}, "0 <= x"),
        ("binarization", {"lr": "0"}, "0 < x"),
        ("distillation", {"T": "0"}, "0 < x"),
        ("distillation", {"T": "-4"}, "0 < x"),
        ("distillation", {"alpha": "1.5"}, "0 <= x <= 1"),
        ("distillation", {"width": "2"}, "0 < x <= 1"),
        ("distillation", {"epochs": "0"}, "1 <= x"),
        ("feature-distillation", {"points": "0"}, "1 <= x"),
        ("progressive-distillation", {"students": "0"}, "1 <= x"),
        ("multi-teacher-distillation", {"teachers": "1"}, "2 <= x"),
        ("multi-teacher-distillation", {"clusters": "0"}, "1 <= x"),
    ],
)
def test_bad_parameters_are_one_sentence(name: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        params.build(SPECS[name].params, given, owner=f"method {name!r}")
    assert words in caught.value.message
    assert next(iter(given)) in caught.value.message


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("magnitude-pruning", {"ratio": 0.5, "threshold": 0.1}, "give one of them"),
        ("magnitude-pruning", {"threshold": 0.1, "schedule": "gradual"}, "takes no threshold"),
        ("magnitude-pruning", {"epochs": 0, "schedule": "gradual"}, "needs epochs"),
        ("magnitude-pruning", {"epochs": 0, "before": 0, "penalty": "l1"}, "needs before of at least 1"),
        ("magnitude-pruning", {"before": 0, "penalty": "l1"}, "needs before of at least 1"),
        ("magnitude-pruning", {"epochs": 0, "distill": 0.5}, "needs epochs"),
        ("n-m-pruning", {"n": 4, "m": 4}, "below m; got n=4, m=4"),
        ("n-m-pruning", {"n": 5}, "below m"),
        ("weight-clipping", {"limit": "value"}, "belong together"),
        ("weight-clipping", {"c": 1.0}, "belong together"),
        ("channel-pruning", {"epochs": 0, "distill": 0.5}, "needs epochs"),
        ("low-rank", {"rank": 4, "budget": 0.5}, "budget and rank each"),
        ("tucker", {"rank": 4, "energy": 0.5}, "energy and rank each"),
        ("cp", {"rank": 4, "budget": 0.5}, "give one of them"),
        ("cp", {"epochs": 0, "distill": 0.5}, "needs epochs"),
    ],
)
def test_bad_combinations_are_one_sentence(name: str, given: dict[str, Any], words: str) -> None:
    spec = SPECS[name]
    assert spec.check is not None
    assert spec.check(spec.params()) is None
    found = spec.check(spec.params(**given))
    assert found is not None
    assert words in found
    assert "\n" not in found


def test_importing_the_plugins_loads_no_framework() -> None:
    imports = "; ".join(f"import harness_{name}" for name in PLUGINS)
    code = f"import sys; {imports}; print([m for m in ('torch', 'torch_pruning', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
