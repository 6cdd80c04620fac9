"""What share of a model ran in the precision that was asked for, and the flags that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness.types import Coverage, Placement, Precision

_ARITHMETIC = {  # wanted compute type -> names that runtimes print for it
    "int8": {"int8", "uint8", "i8", "u8", "s8"},
    "float16": {"float16", "fp16", "f16"},
    "bfloat16": {"bfloat16", "bf16"},
    "float32": {"float32", "fp32", "f32"},
    "binary": {"binary", "u1"},
}
_NARROW_FLOATS = _ARITHMETIC["float16"] | _ARITHMETIC["bfloat16"]
LEAST_SHARE = 0.5  # of MACs in int8 below which a cell is called not actually quantised (MEASUREMENT.md section 3)


def wanted_arithmetic(precision: Precision) -> str:
    """Return the arithmetic that a precision asks for; weight-only and packed weights compute in float32."""
    return (
        precision.activations
        if precision.scheme in {"static", "dynamic"}
        else precision.weights
        if precision.scheme == "float"
        else "float32"
    )


def _share(
    placements: Sequence[Placement], names: set[str], weight: Callable[[Placement], float | None]
) -> float | None:
    weights = [weight(item) for item in placements]
    total = sum(value for value in weights if value is not None)
    if total <= 0:
        return None
    hit = sum(value for item, value in zip(placements, weights, strict=True) if value and item.precision in names)
    return hit / total


def coverage(placements: Sequence[Placement], precision: Precision, reason: str = "") -> Coverage:
    """Return the share of executed operators, of MACs and of time that ran in the wanted arithmetic (0..1)."""
    wanted = wanted_arithmetic(precision)
    names = _ARITHMETIC.get(wanted, {wanted})
    return Coverage(
        wanted=wanted,
        by_op=_share(placements, names, lambda _item: 1.0),
        by_macs=_share(placements, names, lambda item: None if item.macs is None else float(item.macs)),
        by_time=_share(placements, names, lambda item: item.time_share),
        reason=reason,
    )


def same_arithmetic(name: str, wanted: str) -> bool:
    """Tell whether a runtime's name for a precision is the arithmetic that is wanted."""
    return name in _ARITHMETIC.get(wanted, {wanted})


def executed_as(placements: Iterable[Placement]) -> str:
    """Name the arithmetic that did most of the MACs; empty where it is not known."""
    totals: dict[str, int] = {}
    for item in placements:
        totals[item.precision] = totals.get(item.precision, 0) + (item.macs or 0)
    best = max(totals, key=totals.__getitem__, default="")
    return best if totals.get(best, 0) > 0 else ""


def _mostly_otherwise(found: Coverage) -> bool:
    share = found.by_macs if found.by_macs is not None else found.by_op
    return share is not None and share < LEAST_SHARE


def not_actually_quantised(found: Coverage) -> bool:
    """Tell whether under half of what was to run in int8 did: by MACs, or by operators where those are not known."""
    return found.wanted == "int8" and _mostly_otherwise(found)


def flags(
    placements: Sequence[Placement], precision: Precision, found: Coverage, sparsity: Sequence[str]
) -> tuple[str, ...]:
    """Return the flags of a cell: what it says on its label and did not do.

    Args:
        placements: What ran.
        precision: What was asked for.
        found: The coverage of these placements.
        sparsity: Patterns for which the target has a kernel.
    """
    result: list[str] = []
    if not_actually_quantised(found):
        result.append("not_actually_quantised")
    if found.wanted == "float32" and any(item.precision in _NARROW_FLOATS and item.macs for item in placements):
        result.append("precision_leak")
    if found.wanted in {"float16", "bfloat16"} and _mostly_otherwise(found):
        result.append(f"stored_{found.wanted}_executed_{executed_as(placements) or 'otherwise'}")
    if precision.storage == "packed" and not any(item.precision in _ARITHMETIC["binary"] for item in placements):
        result.append(f"stored_1bit_executed_{executed_as(placements) or 'dense'}")
    if precision.storage == "codebook":
        result.append(f"stored_codebook_executed_{executed_as(placements) or 'dense'}")
    if precision.storage == "sparse" and (precision.pattern or "unstructured") not in sparsity:
        result.append("stored_sparse_executed_dense")
    if len({item.device for item in placements}) > 1:
        result.append("fallback")
    return tuple(result)
