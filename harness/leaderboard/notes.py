"""What the figures come to, in words: for a row, for the host, and the meaning of every flag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness import claims
from harness.stats import coverage as cover

if TYPE_CHECKING:
    from harness.types import Coverage, LaunchSet, Noise, Record

NOISY_SHARE = 0.1  # of launches; the board says so above it (MEASUREMENT.md section 1.8: ok is <= 10 %)

_NO_GAIN = "no gain"
FLAGS = {
    "not_actually_quantised": "less than half ran, or of weight-only is stored, in the precision that the name says",
    "precision_leak": "part of a float32 model ran in a narrower float",
    "output_slice_lost": "a channel, class or coordinate of an output is gone: constant, or under 3 dB",
    "integers_differ": "integers of an output are near the framework's and not equal: they were computed in floats",
    "second_oracle": "the most trusted oracle gave no answers, or others; the next one judged this cell",
    "nan_outputs": "the model itself gives NaN in places, and so does this cell",
    "fallback": "operators ran on more than one device",
    "stored_sparse_executed_dense": "the zeros save storage only; this target has no sparse kernel",
    "underpowered": "too few test items to tell a 1 % drop",
    "noisy": "the latency was disturbed; do not rely on it",
    "suspect": "the latency may have been disturbed",
    "floor_violation": "faster than this host can compute it: rejected",
    "ceiling_stale": "faster than the ceiling that was measured: an algorithm saved multiplications, or the clock rose",
    "as_given": "the user's file as it came: its normal form could not be had, or gave other outputs",
    "synthetic_weights": "random weights: for speed and memory, no claim about accuracy",
    "unrolled_rnn": "recurrent layers are written out step by step in the file",
    "cast_to_float32": "the model's own weights are of another float type; float32 is what was compressed and measured",
    "runs_no_model": "the target runs no model: the row is the harness's own cost",
    "random_calibration": "calibrated on random data: no claim about accuracy",
}


def meaning(flag: str) -> str:
    """Return what a flag says; empty for a plugin's own."""
    if flag.startswith("stored_") and "_executed_" in flag:
        stored, executed = stored_and_executed(flag)
        return FLAGS.get(flag, f"stored as {stored}, computed as {executed}")
    if flag.startswith("own_range:"):
        return (
            f"layer {flag.partition(':')[2]!r} keeps the range that the runtime finds: the one given cannot bind there"
        )
    return FLAGS.get(flag) or claims.meaning(flag)


def stored_and_executed(flag: str) -> tuple[str, str]:
    """Split a flag such as stored_1bit_executed_float32 into what is stored and what is computed."""
    stored, _, executed = flag.removeprefix("stored_").partition("_executed_")
    return stored.replace("1bit", "1-bit"), executed


def all_flags(record: Record) -> tuple[str, ...]:
    """Return a record's flags, with the one for a cell that is compressed on paper only."""
    on_paper = record.coverage is not None and cover.not_actually_quantised(record.coverage)
    return tuple(dict.fromkeys((*record.flags, *(("not_actually_quantised",) if on_paper else ()))))


def note(record: Record) -> str:
    """Say in words what a method brings where that is nothing, or less than its name says."""
    if record.status == "ok" and record.kind == "simulated":
        return f"simulated: no latency{_told(record)}"
    if record.status != "ok" or record.latency is None or record.anchor == record.cell_id:
        return ""
    said = list(_on_paper(record))
    speed = _speed(record)
    told = any(text.startswith(_NO_GAIN) for text in said) and speed.startswith(_NO_GAIN)
    return "; ".join([*said, speed] if speed and not told else said)


def _told(record: Record) -> str:
    """Return what the session of an emulated cell found."""
    return f"; {record.effective['remark']}" if "remark" in record.effective else ""


def _on_paper(record: Record) -> Iterable[str]:
    flags, target = all_flags(record), record.cell.target.name
    gained = record.latency is not None and record.latency.verdict == "faster"
    if not gained and ("stored_sparse_executed_dense" in flags or _zeros_unused(record)):
        yield f"{_NO_GAIN}: {target} has no sparse kernel"
    if "not_actually_quantised" in flags and record.coverage is not None:
        yield from _how_little(record.coverage)
    if any(flag == claims.LESS or flag.startswith(claims.NOT_ACTUALLY) for flag in record.flags):
        yield from claims.sentences(record.lineage)
    for flag in flags:
        if flag.startswith("stored_") and "_executed_" in flag and flag != "stored_sparse_executed_dense":
            stored, executed = stored_and_executed(flag)
            yield f"{f'{_NO_GAIN}: ' if not gained else ''}stored as {stored}, runs as {executed} on {target}"


def _how_little(found: Coverage) -> Iterable[str]:
    got = cover.share(found)
    if got is not None and cover.judged_by(found) == "weights":
        yield f"only {_percent(got)} of the weights are stored in {found.label.removeprefix('weight-only-')}"
    elif got is not None:
        yield f"only {_percent(got)} of MACs ran in {found.wanted}"


def _zeros_unused(record: Record) -> bool:
    """Tell whether a model has many zeros in full-size tensors, on a target known to have no kernel for them."""
    effect = {name: value for made in record.lineage for name, value in made.effect.items()}
    total, nonzero = effect.get("parameters", 0), effect.get("nonzero_parameters", 0)
    return record.provenance.get("sparsity_kernels") == "none" and 0 < nonzero < 0.9 * total


def _speed(record: Record) -> str:
    latency = record.latency
    if latency is None or latency.ratio is None or latency.ratio.point <= 0:
        return ""
    gain = 1 / latency.ratio.point
    if latency.verdict == "slower":
        return f"{_NO_GAIN}: slower than its anchor ({gain:.2f} times as fast)"
    if latency.verdict == "equivalent":
        return f"{_NO_GAIN} in speed: as fast as its anchor, within the margin"
    return "speed-up not resolved" if latency.verdict == "unresolved" else ""


def noise_sentence(sets: Iterable[LaunchSet]) -> str:
    """Say, with figures, that the host was noisy while these sets were measured; empty where it was quiet."""
    seen = [launch.noise for item in sets for launch in item.launches]
    noisy, suspect = (sum(noise.verdict == word for noise in seen) for word in ("noisy", "suspect"))
    if not seen or (noisy + suspect) / len(seen) <= NOISY_SHARE:
        return ""
    shares = f"{_percent(noisy / len(seen))} of {len(seen)} launches noisy, {_percent(suspect / len(seen))} suspect"
    figures = ", ".join(_figures(seen))
    return f"the host was noisy: {shares} ({figures}); absolute latencies are disturbed, paired ratios less so"


def _figures(seen: Sequence[Noise]) -> Iterable[str]:
    canary = [value for noise in seen for value in (noise.canary_before_gflops, noise.canary_after_gflops) if value > 0]
    if canary:
        yield f"canary {min(canary):.3g} to {max(canary):.3g} GFLOP/s"
    steal = [noise.steal for noise in seen if noise.steal is not None]
    yield f"steal up to {_percent(max(steal), 1)}" if steal else "steal not available"
    yield f"cpu/wall down to {min(noise.cpu_wall for noise in seen):.2f}"
    hiccup = max(max(noise.hiccup_before, noise.hiccup_after) for noise in seen)
    yield f"hiccups up to {_percent(hiccup, 1)}"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
