"""Judge a cell's outputs by the framework's own: whether they are right, and which parts of them are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.build import Built
from harness.errors import Unsupported
from harness.stats.closeness import closeness
from harness.types import Artifact, Closeness, OracleCheck, Placement

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]

SLICE_LOST, NOT_NUMBERS = "output_slice_lost", "nan_outputs"
INTEGERS_DIFFER, SECOND_ORACLE = "integers_differ", "second_oracle"


@dataclass(frozen=True)
class Tolerance:
    """What an answer computed in one precision has to reach: SQNR, and of integers and texts the share that is equal.

    Attributes:
        why: Where the figures come from.
    """

    due_db: float
    equal: float
    why: str


TOLERANCES: Mapping[str, Tolerance] = {
    "float64": Tolerance(60, 0.99, "as float32: a runtime may compute it in float32 inside"),
    "float32": Tolerance(60, 0.99, "another order of sums leaves 90 dB and more; Winograd and cancellation take 30"),
    "tf32": Tolerance(40, 0.97, "10 bits of mantissa in the products: 60 dB a layer, less over the depth"),
    "float16": Tolerance(35, 0.95, "10 bits of mantissa in sums too, and a narrow range"),
    "bfloat16": Tolerance(25, 0.9, "7 bits of mantissa: 45 dB a layer, less over the depth"),
    "int8": Tolerance(15, 0.8, "a file that was quantized already: ties of its roundings fall either way"),
}
WIDEST_FIRST = ("float64", "float32", "tf32", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")


def tolerance(precision: str) -> Tolerance:
    """Return what is due in a precision; anything narrower than bfloat16 is held to what int8 gives."""
    return TOLERANCES.get(precision, TOLERANCES["int8"])


def own_precision(artifact: Artifact) -> str:
    """Return the precision that an artifact's own file computes in: one of half floats may run in them anywhere."""
    sizes = artifact.weight_bytes
    most = max(sizes, key=lambda name: sizes[name], default="")
    return most if artifact.realised == "float32" and most in HALVES else artifact.realised


def ran_in(artifact: Artifact, placements: Sequence[Placement], *, tf32: bool = False) -> str:
    """Return the narrowest float that an artifact computed products in, as its file and the runtime tell.

    Args:
        artifact: What was run.
        placements: What the runtime says of its operators.
        tf32: The user let products of float32 run in TensorFloat-32, which no runtime tells.
    """
    own = own_precision(artifact)
    if own not in WIDEST_FIRST:
        return own
    seen = {item.precision for item in placements if item.macs} | ({"tf32"} if tf32 else set())
    return max({own, *(seen & set(WIDEST_FIRST))}, key=WIDEST_FIRST.index)


def judge(
    outputs: Arrays,
    built: Built,
    placements: Sequence[Placement],
    *,
    binding: bool,
    choice: Mapping[str, int],
    retrained: bool = True,
    tf32: bool = False,
) -> OracleCheck:
    """Compare outputs with the reference of the cell's workload.

    Args:
        outputs: By name, items first.
        built: With the reference.
        placements: What ran, for the precision.
        binding: The cell must compute the model's own function: an anchor, or a method that keeps it.
        choice: Output -> axis along which the largest value is the declared choice.
        retrained: As for ``closeness``.
        tf32: As for ``ran_in``.
    """
    reference = built.reference
    if not reference.files:
        return OracleCheck(reason=reference.reason)
    precision = ran_in(built.artifact, placements, tf32=tf32)
    due = tolerance(precision) if binding else None
    wanted = load_outputs(reference.files)
    found = {
        name: closeness(
            outputs[name],
            array,
            due_db=due.due_db if due else None,
            classes=choice.get(name),
            retrained=retrained,
        )
        for name, array in wanted.items()
        if name in outputs
    }
    least = min((item.sqnr_db for item in found.values()), default=None)
    check = OracleCheck(reference.oracle, reference.items, found, precision, sqnr_db=least, passed=reference.passed)
    if due is None:
        # How many boxes are found may differ in eight bits; how many dimensions they have may not.
        other = (name for name in found if found[name].differs and _rank(outputs[name]) != _rank(wanted[name]))
        return replace(check, wrong=next((_differs(name, found[name], reference.oracle) for name in other), ""))
    missing = next((name for name in wanted if name not in outputs), None)
    if missing is not None:
        wrong = f"output {missing!r} is missing; there are {', '.join(map(repr, outputs))}"
    else:
        wrong = next(filter(None, (_wrong(name, item, due, reference.oracle) for name, item in found.items())), "")
    return replace(check, due_db=due.due_db, wrong=wrong)


def load_outputs(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Read outputs on disk: arrays [n, …] by name, mapped into memory, or ``harness.shards.Ragged`` ones."""
    from harness.shards import load_shard  # numpy is not needed until something was measured

    return {name: load_shard(path) for name, path in paths.items()}


def _wrong(name: str, found: Closeness, due: Tolerance, oracle: str) -> str:
    """Say how an output differs by more than its precision explains, or return an empty text."""
    if found.differs:
        return _differs(name, found, oracle)
    item = found.worst_item if found.first_item is None else found.first_item
    where = f"output {name!r}, item {item}"
    if found.equal is not None:
        if found.equal >= due.equal or found.sqnr_db >= due.due_db:
            return ""
        return f"{where}: {found.equal:.1%} of all elements equal those of {oracle}, at least {due.equal:.0%} is due"
    if found.sqnr_db < due.due_db:
        return f"{where}: {found.sqnr_db:.1f} dB over all items against {oracle}, at least {due.due_db:g} dB is due"
    if found.lost:
        lost = found.lost[0]
        what = f"index {lost.index} of axis {lost.axis} is lost ({lost.sqnr_db:.1f} dB against {oracle})"
        return f"output {name!r}: {what}"
    return ""


def _rank(array: Any) -> int:
    return int(getattr(array, "ndim", 0))  # items that differ in shape have none of their own


def _differs(name: str, found: Closeness, oracle: str) -> str:
    return f"output {name!r} has {found.differs}, by {oracle}"


def refused(check: OracleCheck | None) -> str:
    """Say why nothing may be said of a cell: its answers are wrong, or the model's own are no numbers."""
    if check is None:
        return ""
    if check.wrong:
        return f"wrong answers: {check.wrong}"
    empty = next((name for name, found in check.outputs.items() if found.not_numbers == 1), None)
    if empty is None:
        return ""
    return f"the model itself answers nothing but NaN in output {empty!r}, by {check.oracle}: nothing can be compared"


def refuse_wrong(check: OracleCheck | None) -> None:
    """Refuse a cell of which nothing may be said.

    Raises:
        Unsupported: With the reason.
    """
    why = refused(check)
    if why:
        raise Unsupported(why)


def leaked(check: OracleCheck | None, artifact: Artifact) -> bool:
    """Tell whether a float32 artifact, right as far as its runtime's own precision goes, is no float32 any more."""
    if check is None or own_precision(artifact) != "float32":
        return False
    due = TOLERANCES["float32"].due_db
    return any(found.equal is None and found.sqnr_db < due for found in check.outputs.values())


def oracle_flags(check: OracleCheck | None) -> tuple[str, ...]:
    """Return the flags of a cell that was compared.

    Of one that has to give the model's own answers also: integers that are near them and not equal, and that a more
    trusted oracle gave none, or others, than the one that judged.
    """
    outputs = check.outputs.values() if check is not None else ()
    lost = any(found.lost_count or found.differs for found in outputs)
    holes = any(found.not_numbers for found in outputs)
    flags = [name for name, due in ((SLICE_LOST, lost), (NOT_NUMBERS, holes)) if due]
    if check is not None and check.due_db is not None:
        equal = tolerance(check.precision).equal
        flags += [INTEGERS_DIFFER] * any(found.equal is not None and found.equal < equal for found in outputs)
        flags += [SECOND_ORACLE] * bool(check.passed)
    return tuple(flags)
