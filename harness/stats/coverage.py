"""What share of a model ran in the precision that was asked for, and the flags that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.types import Coverage, Placement, Precision

_ARITHMETIC = {  # wanted compute type -> names that runtimes print for it
    "int8": {"int8", "uint8", "i8", "u8", "s8"},
    "float16": {"float16", "fp16", "f16"},
    "bfloat16": {"bfloat16", "bf16"},
    "float32": {"float32", "fp32", "f32", "float64", "f64"},  # a file of doubles runs in no less than it says
    "binary": {"binary", "u1"},
}
_NARROW_FLOATS = _ARITHMETIC["float16"] | _ARITHMETIC["bfloat16"]
LEAST_SHARE = 0.5  # below which a cell is called not actually quantised (MEASUREMENT.md section 3)
STRICT_SHARE = 0.9  # below which --strict fails a cell, unless another share is given
MIXED = "mixed-"  # of a label that leaves some layers in float on purpose
GIVEN = "as-given"  # the label of a cell whose precision no method asked for
_NOT_QUANTISED = {"", GIVEN, "float32", "float64", "bfloat16", "binary"}  # other flags tell of these
_BITS = {  # of a weight, by the dtype that artifacts name; others hold no weights, such as int32 biases
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4,
    "int2": 2, "uint2": 2, "binary": 1,
}  # fmt: skip
_FLOATS = {"float64", "float32", "float16", "bfloat16"}


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


def label_of(precision: Precision) -> str:
    """Return the precision that a method put on a cell's label, marked where it leaves layers in float on purpose."""
    return f"{MIXED if 'float32' in precision.overrides.values() else ''}{precision.name}"


def stored_share(weight_bytes: Mapping[str, int], weights: str) -> float | None:
    """Return the share of an artifact's weights (0..1, by their number) that are stored in a dtype or a narrower one.

    A float is stored as asked in its own dtype alone; ``None`` where nothing is known of the weights.
    """
    counts = {dtype: 8 * size / _BITS[dtype] for dtype, size in weight_bytes.items() if dtype in _BITS}
    total = sum(counts.values())
    if total <= 0 or weights not in _BITS:
        return None
    held = {dtype for dtype in set(counts) - _FLOATS if _BITS[dtype] <= _BITS[weights]}
    return sum(counts.get(dtype, 0.0) for dtype in ({weights} if weights in _FLOATS else held)) / total


def coverage(
    placements: Sequence[Placement],
    precision: Precision,
    reason: str = "",
    *,
    weight_bytes: Mapping[str, int] | None = None,
    claimed: bool = True,
) -> Coverage:
    """Return the share of executed operators, of MACs and of time that ran in the wanted arithmetic (0..1).

    Args:
        placements: What ran.
        precision: What was asked for.
        reason: Why there are no placements.
        weight_bytes: Dtype -> bytes of the weights in the artifact.
        claimed: Whether a method asked for the precision; a file that came in it claims nothing.
    """
    wanted = wanted_arithmetic(precision)
    names = _ARITHMETIC.get(wanted, {wanted})
    return Coverage(
        wanted=wanted,
        by_op=_share(placements, names, lambda _item: 1.0),
        by_macs=_share(placements, names, lambda item: None if item.macs is None else float(item.macs)),
        by_time=_share(placements, names, lambda item: item.time_share),
        reason=reason,
        by_weights=stored_share(weight_bytes or {}, precision.weights),
        label=label_of(precision) if claimed else GIVEN,
    )


def judged_by(found: Coverage) -> str:
    """Say what tells whether a cell ran as its label says: "macs", "weights", or "" where nothing does.

    Weight-only cells compute in float, so that the weights in the artifact tell. Of others the multiply-accumulates
    do, and where those are not known the weights; the number of operators says nothing of either.
    """
    if not found.label.startswith("weight-only") and found.by_macs is not None:
        return "macs"
    return "weights" if found.by_weights is not None and found.label not in {"float32", "bfloat16"} else ""


def share(found: Coverage) -> float | None:
    """Return the share (0..1) of a cell that ran, or is stored, as its label says; ``None`` where it is not known."""
    return {"macs": found.by_macs, "weights": found.by_weights, "": None}[judged_by(found)]


def falls_short(found: Coverage, least: float = STRICT_SHARE) -> bool:
    """Tell whether less of a cell than ``least`` is known to have run as its label says; of a mixed one, nothing."""
    got = share(found)
    if got is None or found.label in {"", GIVEN}:
        return False
    return got <= 0.0 if found.label.startswith(MIXED) else got < least


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


def not_actually_quantised(found: Coverage) -> bool:
    """Tell whether less than half of what was to be quantised is: the one rule behind that flag.

    A float that is stored as asked and computed otherwise has a flag of its own. Records from before labels were kept
    say what they wanted of the arithmetic alone.
    """
    if not found.label:
        return found.wanted == "int8" and found.by_macs is not None and found.by_macs < LEAST_SHARE
    if found.label in _NOT_QUANTISED or not falls_short(found, LEAST_SHARE):
        return False
    return found.label != "float16" or (found.by_weights is not None and found.by_weights < LEAST_SHARE)


def _stored_only(found: Coverage) -> bool:
    """Tell whether most of the MACs ran otherwise than in the float, or the given file's int8, that is stored."""
    asked = found.wanted in {"float16", "bfloat16"} or (found.wanted == "int8" and found.label == GIVEN)
    return asked and found.by_macs is not None and found.by_macs < LEAST_SHARE and not not_actually_quantised(found)


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
    if not placements:
        return tuple(result)
    if found.wanted == "float32" and any(item.precision in _NARROW_FLOATS and item.macs for item in placements):
        result.append("precision_leak")
    if _stored_only(found):
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
