"""What a plugin is given: a guarded view of the data, the hardware and the workload."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from harness import params
from harness.errors import PluginError, Unsupported
from harness.types import Capabilities, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.specs import Array, Arrays, WorkloadSpec


class Hardware:
    """The capability fields that a step declared; any other raises."""

    def __init__(self, owner: str, fields: Mapping[str, Any]) -> None:
        self._owner = owner
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and inspection ask for these
            raise AttributeError(name)
        if name not in self._fields:
            raise PluginError(f"{self._owner} reads the hardware field {name!r}, which it does not declare in reads")
        return self._fields[name]


def hardware(owner: str, fields: Mapping[str, Any] | None) -> Hardware | None:
    """Build the view from JSON values; ``None`` stays None."""
    if fields is None:
        return None
    hints = typing.get_type_hints(Capabilities)
    return Hardware(owner, {name: msgspec.convert(value, hints[name]) for name, value in fields.items()})


def read_fields(capabilities: Capabilities, reads: frozenset[str], owner: str) -> dict[str, Any]:
    """Return the declared fields of a target's capabilities.

    Raises:
        PluginError: Capabilities have no such field.
    """
    hints = typing.get_type_hints(Capabilities)
    for name in sorted(reads):
        if name not in hints:
            raise PluginError(f"{owner} declares to read {name!r}; capabilities have {', '.join(hints)}")
    return {name: getattr(capabilities, name) for name in sorted(reads)}


@dataclass(frozen=True)
class Workload:
    """A workload with its parameters: the ``WorkloadView`` of a step."""

    spec: WorkloadSpec[Any]
    params: Any

    @classmethod
    def of(cls, spec: WorkloadSpec[Any], given: Mapping[str, Any]) -> Workload:
        """Build the parameters from their JSON values."""
        return cls(spec, params.build(spec.params, given, owner=f"workload {spec.name!r}"))

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.spec.name

    @property
    def task(self) -> str:
        """classification, regression or none."""
        return self.spec.task(self.params) if callable(self.spec.task) else self.spec.task

    def classes(self, outputs: Mapping[str, Any]) -> dict[str, int]:
        """Return the axis of the classes in each of these outputs, items first, in which they are declared."""
        if self.task == "regression":
            return {}
        if not callable(self.spec.classes_axis):
            return dict.fromkeys(outputs, self.spec.classes_axis)
        axis, first = self.spec.classes_axis(self.params), next(iter(outputs), "")
        if self.task != "classification" or not first:
            return {}
        if axis is not None:
            return {first: axis}
        return {first: -1} if getattr(outputs[first], "ndim", 0) in {1, 2} else {}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs in call order, batch dimension first."""
        return self.spec.inputs(self.params)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output names in order."""
        return self.spec.outputs(self.params) if callable(self.spec.outputs) else self.spec.outputs

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.spec.higher_is_better

    @property
    def labelled(self) -> bool:
        """Whether the test split has labels."""
        return self.spec.labelled(self.params) if callable(self.spec.labelled) else self.spec.labelled

    @property
    def produces(self) -> str:
        """Format of the fitted model."""
        return self.spec.produces(self.params) if callable(self.spec.produces) else self.spec.produces

    @property
    def augment(self) -> Callable[[Any, Any], Any] | None:
        """(torch inputs in call order, torch.Generator) -> inputs of a varied training batch; ``None`` without any."""
        own = self.spec.augment
        return None if own is None else lambda inputs, generator: own(self.params, inputs, generator)

    def build(self, *, width: float = 1.0, depth: float = 1.0) -> Any:
        """Return a fresh untrained module.

        Raises:
            Unsupported: The workload has only a file.
        """
        if self.spec.model is None:
            raise Unsupported(f"workload {self.name!r} has no model to build, only its file")
        return self.spec.model(self.params, width=width, depth=depth)

    def loss(self, outputs: Any, labels: Any) -> Any:
        """Return the task loss.

        Raises:
            Unsupported: The workload has none.
        """
        if self.spec.loss is None:
            raise Unsupported(f"workload {self.name!r} has no loss to train with")
        return self.spec.loss(outputs, labels)

    def score(self, outputs: Arrays, labels: Array) -> Array:
        """Return per-item statistics of shape [n, k]; declared classes are handed to the metric on axis 1.

        Raises:
            Unsupported: The workload has no labels.
        """
        if self.spec.score is None:
            raise Unsupported(f"workload {self.name!r} has no labels to score against")
        if not callable(self.spec.classes_axis) or not outputs:
            return self.spec.score(outputs, labels)
        import numpy as np

        first, axis = next(iter(outputs)), self.spec.classes_axis(self.params)
        moved = outputs[first] if axis is None else np.moveaxis(outputs[first], axis, 1)
        return self.spec.score({**outputs, first: moved}, labels)

    def aggregate(self, scores: Array) -> float:
        """Reduce per-item statistics to the metric.

        Raises:
            Unsupported: The workload has no metric.
        """
        if self.spec.aggregate is None:
            raise Unsupported(f"workload {self.name!r} has no metric")
        return self.spec.aggregate(scores)
