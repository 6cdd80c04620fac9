"""What a model holds, read without building anything: the values of ``harness inspect`` and who reads a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from harness.types import Model

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Operators:
    """All operators (or layers) of one type.

    Attributes:
        op: Type, with its domain where that is not the format's own, such as "com.microsoft.FusedConv".
        count: In the graph and its subgraphs.
        macs: Multiply-accumulates of all of them for one item; ``None`` where they have none or shapes are not known.
    """

    op: str
    count: int
    macs: int | None = None


@dataclass(frozen=True)
class Weights:
    """Stored tensors that lie in the same kind of place in the same precision.

    Attributes:
        where: Such as "initializers", "Constant nodes", "subgraphs", "external data", "parameters".
        dtype: As stored.
        tensors: How many.
        bytes: Of all of them.
    """

    where: str
    dtype: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Inspected:
    """What is in a model file, or in a module.

    Attributes:
        format: "onnx", "torch", "tflite" or a format that a plugin brings.
        producer: What wrote it, with its version.
        versions: Such as "opset" -> "17", "IR" -> "8".
        operators: Types, most multiply-accumulates first.
        weights: By place and precision, most bytes first.
        remarks: What decides what can be done with it, in a sentence each.
    """

    format: str
    producer: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    operators: tuple[Operators, ...] = ()
    weights: tuple[Weights, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a target says of a model before anything is built.

    Attributes:
        text: In a sentence.
        stops: Whether the cell cannot be; else it is a remark.
    """

    text: str
    stops: bool = True


@dataclass(frozen=True, kw_only=True)
class InspectorSpec:
    """Who reads a model format for ``harness inspect``.

    Attributes:
        name: The format, such as "onnx".
        inspect: Model and shapes of its inputs at one item (those that are known) -> what it holds. It runs nothing.
        extra: The extra of our distribution that installs what it needs.
        nan_weights: Model -> name of each weight that holds NaN, and how many. A method that gives such a model is told
            at once; ``None`` where nobody can tell.
    """

    name: str
    inspect: Callable[[Model, Shapes], Inspected]
    extra: str = ""
    nan_weights: Callable[[Model], Mapping[str, int]] | None = None
