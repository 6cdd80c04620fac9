"""Do distilled students beat the same student trained on labels? Eight seeds each, judged on unseen fonts."""

from __future__ import annotations

import functools
import logging
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import harness_distillation
from harness.api import Job, Model
from harness.build.job import Workload
from harness.plugins import load_registry
from harness_torch import call, fit, load, seed_everything

SEEDS = range(8)
TESTED = slice(None, None, 3)  # of the 10,080 test items
SPECS = {spec.name: spec for spec in harness_distillation.harness_methods()}


@dataclass
class Ground:
    """A workload, its teacher, and students of half the width taught by labels."""

    name: str
    given: dict[str, float]
    lr: float  # of the students
    folder: Path = Path()
    split: object = field(init=False)

    def __post_init__(self) -> None:
        spec = load_registry(only={"workloads"}).workloads[self.name].spec
        self.workload = Workload.of(spec, self.given)
        self.split = functools.cache(lambda name: spec.split(self.workload.params, name))  # each rendered once

    def job(self, name: str, seed: int, reference: Model | None = None) -> Job:
        """Return a job in a folder of its own."""
        out = self.folder / name / str(seed)
        out.mkdir(parents=True, exist_ok=True)
        return Job(
            out=out, seed=seed, threads=1, data=self, workload=self.workload, progress=lambda *_: None,
            log=logging.getLogger("harness"), reference=reference,
        )  # fmt: skip

    def hits(self, module) -> np.ndarray:
        """Return which of the test items a module gets right."""
        items = self.split("test")
        outputs = call(module, {name: value[TESTED] for name, value in items.inputs.items()}, outputs=("logits",))
        return self.workload.score(outputs, items.labels[TESTED])[:, 0] > 0.5

    @functools.cached_property
    def teacher(self) -> Model:
        """The workload's own model."""
        model = self.workload.spec.fit(self.workload.params, self.job("teacher", 0))
        right = self.hits(load(model)).mean()
        print(f"\n{self.name}: teacher {right:.2%}", flush=True)
        assert right > 0.8, "a teacher that has not learned has nothing to teach"
        return model

    @functools.cached_property
    def from_labels(self) -> np.ndarray:
        """Hits [seeds, items] of students with the same start, batches and epochs, taught by labels."""
        found = []
        for seed in SEEDS:
            seed_everything(seed)
            student = self.workload.build(width=0.5)
            mine = self.job("labels", seed)
            fit(student, mine, epochs=self.given["epochs"], lr=self.lr, augment=self.workload.augment)
            found.append(self.hits(student))
            print(f"labels, seed {seed}: {found[-1].mean():.2%}", flush=True)
        return np.array(found)


# "few": few items and many passes, so that everyone has learned out: students of labels know 99.9 % of their items.
# "wide": the usual items and passes, and a teacher of twice the usual width, so that its student is the usual network.
# "transformer": the usual items and passes, at a rate that suits labels: on two seeds of the selection split they came
# to 69 % at 5e-3 and 70 % at 7e-3, less at 2e-3 and 3.5e-3, and 1e-2 lost the one that was tried.
GROUNDS = {
    "few": Ground("glyphs-resnet8", {"items": 1500, "epochs": 96}, lr=1e-2),
    "wide": Ground("glyphs-resnet8", {"items": 12_000, "epochs": 6, "width": 2.0}, lr=1e-2),
    "transformer": Ground("glyphs-transformer", {"items": 12_000, "epochs": 9}, lr=5e-3),
}

NO_GAIN = pytest.mark.xfail(raises=AssertionError, reason="logits bring this student nothing")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("distillation", "transformer"),
        ("feature-distillation", "few"),
        pytest.param("distillation", "few", marks=NO_GAIN),
        pytest.param("distillation", "wide", marks=NO_GAIN),
    ],
)
def test_distilled_students_beat_students_of_labels(name, where, tmp_path):
    ground, spec, distilled = GROUNDS[where], SPECS[name], []
    ground.folder = tmp_path
    teacher, from_labels = ground.teacher, ground.from_labels
    for seed in SEEDS:
        mine = ground.job(name, seed, teacher)
        params = spec.params(epochs=ground.given["epochs"], lr=ground.lr)
        distilled.append(ground.hits(load(spec.compress(teacher, params, mine))))
        print(f"{name}, seed {seed}: {distilled[-1].mean():.2%}", flush=True)
    taught = np.array(distilled)
    gained, lost = int((taught & ~from_labels).sum()), int((~taught & from_labels).sum())
    pooled = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue  # exact McNemar, pooled over seeds
    per_seed = ttest_rel(taught.mean(1), from_labels.mean(1), alternative="greater")
    low = per_seed.confidence_interval(0.95).low
    difference = statistics.fmean(taught.mean(1) - from_labels.mean(1))
    print(
        f"\n{name}: {taught.mean():.2%} against {from_labels.mean():.2%} from labels, {difference:+.2%} "
        f"(one-sided 95 % bound over seeds {low:+.2%}); {gained} gained, {lost} lost, p {pooled:.2g}; "
        f"better in {int((taught.mean(1) > from_labels.mean(1)).sum())} of {len(SEEDS)} seeds"
    )
    assert pooled < 0.01
    assert low > 0
