"""Why a cell is not faster than its anchor, inferred from what ran: its placements beside the anchor's.

The core knows no runtime. What is recognised here are the field's own words for operators that move or convert
data; a runtime with other words loses an explanation, never gains a wrong one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.stats.coverage import same_arithmetic
from harness.stats.roofline import BIG_MACS

if TYPE_CHECKING:
    from harness.types import Placement, Record

_QDQ = re.compile(r"(de)?quantize(linear)?|fakequantize", re.IGNORECASE)
_DYNAMIC = re.compile(r"dynamicquantizelinear", re.IGNORECASE)
_MOVES = re.compile(r"(reorder|reformat|transpose|permute|convert|cast|copy|shuffle).*", re.IGNORECASE)
_PLAIN = re.compile(r".*\b(built-?in|reference|ref)(\b|_).*", re.IGNORECASE)  # kernels that nobody tuned
_MENTIONED = 0.02  # of the time; what takes less explains nothing
_GROWN = 1.5  # times the anchor's operators
_FEW_MACS = 8.0  # per weight and item: below it weights are read about as fast as they are used
_FAR = 10.0  # percent of the roofline
_NAMES = 3  # operator types that are named


def why_slow(record: Record, anchor: Record | None, host_facts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the reasons, the surest first; empty for cells that are faster, failed, or the anchor itself."""
    latency = record.latency
    losing = latency is not None and latency.verdict in {"slower", "equivalent", "unresolved"}
    if record.status != "ok" or not losing or record.anchor == record.cell_id:
        return ()
    return tuple(
        text
        for text in (
            _several_devices(record.placements),
            _fallback(record),
            _kind_of(record.placements, _QDQ, "unfused quantize and dequantize"),
            _kind_of(record.placements, _DYNAMIC, "activations are quantized at run time"),
            _plain_kernels(record, anchor),
            _kind_of(_more_moves(record, anchor), _MOVES, "reorders and conversions"),
            _grown(record, anchor),
            _odd_channels(record),
            _memory_bound(record, host_facts),
            _far_from_the_roof(record),
        )
        if text
    )


def _kind_of(placements: Sequence[Placement], pattern: re.Pattern[str], words: str) -> str:
    """Name operators of one kind, with the share of time that they take; empty where they do not matter."""
    return _told(words, placements, lambda item: pattern.fullmatch(item.op) is not None)


def _told(words: str, placements: Sequence[Placement], of: Callable[[Placement], bool]) -> str:
    found = [item for item in placements if of(item)]
    share = _time(found)
    if not found or (share is not None and share < _MENTIONED):
        return ""
    taken = "" if share is None else f", {100 * share:.0f} % of the time"
    return f"{words}: {_counted(item.op for item in found)}{taken}"


def _counted(names: Iterable[str]) -> str:
    most = Counter(names).most_common()
    text = ", ".join(f"{count} {name}" for name, count in most[:_NAMES])
    return text + (f" and {sum(count for _name, count in most[_NAMES:])} more" if len(most) > _NAMES else "")


def _time(placements: Iterable[Placement]) -> float | None:
    known = [item.time_share for item in placements if item.time_share is not None]
    return sum(known) if known else None


def _several_devices(placements: Sequence[Placement]) -> str:
    devices = Counter(item.device for item in placements)
    if len(devices) < 2:
        return ""
    main = devices.most_common(1)[0][0]
    return _told(f"fallback from {main}", placements, lambda item: item.device != main)


def _fallback(record: Record) -> str:
    """Name what computes in another arithmetic than was asked for."""
    wanted = record.coverage.wanted if record.coverage else "float32"
    if wanted == "float32":
        return ""
    other = [item for item in record.placements if item.macs and not same_arithmetic(item.precision, wanted)]
    total = sum(item.macs or 0 for item in record.placements)
    if not other or not total:
        return ""
    share = sum(item.macs or 0 for item in other) / total
    precisions = ", ".join(sorted({item.precision for item in other}))
    return f"not in {wanted}: {_counted(item.op for item in other)} in {precisions}, {100 * share:.0f} % of MACs"


def _more_moves(record: Record, anchor: Record | None) -> Sequence[Placement]:
    """Return the placements if they hold more reorders than the anchor's: those that both have explain nothing."""
    before = sum(_MOVES.fullmatch(item.op) is not None for item in anchor.placements) if anchor else 0
    now = sum(_MOVES.fullmatch(item.op) is not None for item in record.placements)
    return record.placements if now > before else ()


def _plain_kernels(record: Record, anchor: Record | None) -> str:
    """Name operators in builtin or reference kernels, where the anchor has fewer of them."""

    def plain(item: Placement) -> bool:
        return _PLAIN.fullmatch(item.kernel) is not None

    if sum(map(plain, record.placements)) <= (sum(map(plain, anchor.placements)) if anchor else 0):
        return ""
    return _told("in builtin or reference kernels", record.placements, plain)


def _grown(record: Record, anchor: Record | None) -> str:
    ours, theirs = record.placements, anchor.placements if anchor else ()
    if not theirs or len(ours) < _GROWN * len(theirs):
        return ""
    added = Counter(item.op for item in ours) - Counter(item.op for item in theirs)
    names = ", ".join(f"{count} {name}" for name, count in added.most_common(_NAMES))
    idle = _time(item for item in ours if not item.macs)
    taken = "" if idle is None else f"; operators without MACs take {100 * idle:.0f} % of the time"
    return f"{len(ours)} operators against {len(theirs)} of the anchor (more {names}){taken}"


def _odd_channels(record: Record) -> str:
    multiple = int(record.provenance.get("channel_multiple", "1"))
    known = [item for item in record.placements if item.macs and item.channels is not None]
    odd = [item for item in known if item.channels and item.channels % multiple and item.channels > multiple]
    share = sum(item.macs or 0 for item in odd) / max(1, sum(item.macs or 0 for item in known))
    if multiple < 2 or share < _MENTIONED:
        return ""
    counts = ", ".join(str(value) for value in sorted({item.channels or 0 for item in odd})[:_NAMES])
    return f"odd channels: {counts} fill no whole vector of {multiple} lanes, {100 * share:.0f} % of MACs"


def _memory_bound(record: Record, host_facts: Mapping[str, str]) -> str:
    """Tell where each weight is read for few MACs, from beyond the last-level cache."""
    effect = {name: value for made in record.lineage for name, value in made.effect.items()}
    parameters, macs = effect.get("parameters", 0), effect.get("macs", 0)
    cache = last_level_cache_bytes(host_facts.get("caches", ""))
    if not parameters or not macs or cache is None or record.artifact is None:
        return ""
    per_weight = macs * record.cell.options.batch / parameters
    if per_weight >= _FEW_MACS or record.artifact.artifact_bytes <= cache:
        return ""
    size, room = record.artifact.artifact_bytes / 2**20, cache / 2**20
    return (
        f"memory-bound at batch {record.cell.options.batch}: {per_weight:.1f} MACs per weight, and {size:.0f} MiB of "
        f"weights do not fit the last-level cache of {room:.0f} MiB"
    )


def _far_from_the_roof(record: Record) -> str:
    """Tell where a large model uses little of what its host can compute."""
    top = record.roofline
    if top is None or top.percent is None or not top.macs or top.macs < BIG_MACS or top.percent >= _FAR:
        return ""
    return f"{top.percent:.1f} % of what this host can compute: time goes to dispatch, moves or fallbacks"


def last_level_cache_bytes(text: str) -> int | None:
    """Read the largest cache of a fingerprint's "L1 Data 32K, L3 Unified 36608K"; ``None`` where it tells none."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [int(number) * units[unit] for number, unit in re.findall(r"(\d+)([KMG])\b", text)]
    return max(sizes, default=None)
