"""What the checks of one plugin share: how thorough they are, scratch folders and test models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.build.cache import Cache, default_root
from harness.testing.material import Order, prepare, samples
from harness.testing.observed import Material
from harness.testing.process import LIMIT_S
from harness.testing.results import Judge
from harness.types import Failure, Model

if TYPE_CHECKING:
    from harness.plugins import Registry

QUICK = ("dense",)  # test models of a quick check


@dataclass(frozen=True)
class Settings:
    """How thorough a check is.

    Attributes:
        quick: One test model, float32 only.
        samples: Layer kinds to test on; ``None`` for all that are installed (one where ``quick``).
        limit_s: Of one call of a plugin's function.
        cache: Where test models are kept; ``None`` for the user's cache.
        params: Of the offer under test, where the defaults will not do.
        declared_only: Call no plugin function.
    """

    quick: bool = False
    samples: tuple[str, ...] | None = None
    limit_s: float = LIMIT_S
    cache: Path | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    declared_only: bool = False

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """The layer kinds to test on."""
        return self.samples if self.samples is not None else QUICK if self.quick else None


DEFAULT = Settings()


@dataclass
class Bench:
    """What the checks of one plugin share: scratch folders and test models, each prepared once."""

    registry: Registry
    settings: Settings
    scratch: Path
    materials: dict[tuple[str, tuple[str, ...]], list[Material]] = field(default_factory=dict)
    count: int = 0

    def folder(self) -> Path:
        """Return the path of a new folder, not made yet."""
        self.count += 1
        return self.scratch / f"call-{self.count:04d}"

    def prepared(self, formats: tuple[str, ...]) -> tuple[list[Material], dict[str, Failure]]:
        """Return the test models in these formats, and why some are missing."""
        chosen = samples(self.registry, self.settings.kinds)
        orders = [Order(name, formats, {}) for name in chosen.values()]
        return prepare(
            self.registry,
            orders,
            Cache(self.settings.cache or default_root()),
            self.folder(),
            timeout_s=max(300.0, self.settings.limit_s),
        )


def each_material(bench: Bench, judge: Judge, formats: tuple[str, ...]) -> Iterator[Material]:
    """Yield the test models in these formats; what could not be had is noted."""
    materials, lost = bench.prepared(formats)
    for workload, why in lost.items():
        judge.skip("runs", f"the test model {workload} could not be had: {why.reason}", workload)
    if not materials and not lost:
        judge.skip("runs", "no test model is installed: harness_workloads offers them with the extra [torch]")
    yield from materials


def model_for(judge: Judge, material: Material, accepts: frozenset[str]) -> Model | None:
    """Return the test model in a format that is accepted (any, where nothing is named)."""
    for name, model in material.models.items():
        if not accepts or name in accepts:
            return model
    why = "; ".join(material.missing.values()) or f"it is had as {', '.join(material.models)}"
    judge.skip("runs", f"no test model in {' or '.join(sorted(accepts))}: {why}", material.exercises)
    return None
