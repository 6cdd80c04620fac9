"""What was measured beside accuracy and latency: trust in probabilities, robustness, scenarios."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard.digits import UNKNOWN, plain, ranged
from harness.leaderboard.intervals import bounds, mirrored
from harness.leaderboard.oracles import oracle

if TYPE_CHECKING:
    from harness.types import Confidence, Quality, Record, Robustness, ScenarioResult

Row = Mapping[str, Any]
SCENARIOS_HEADER = ("scenario of", "target", "single stream p90", "offline", "server", "sustained p50", "valid")
TRUST_HEADER = (
    "robustness and trust", "target", "when corrupted", "drop when corrupted", "added by compression",
    "calibration error", "its change", "log-loss", "drift",
)  # fmt: skip
_CLOSENESS = (
    "top1_agreement", "sqnr_db", "top5_agreement", "kl_mean", "kl_p99", "cosine_p1", "max_abs_error", "outside_share",
)  # fmt: skip
APART = 0.05  # two cells closer than this are in no order, in bursts or under lasting load


def beyond(record: Record) -> dict[str, Any]:
    """Return the columns of one record."""
    found: dict[str, Any] = {"host_tier": record.provenance.get("host_tier", "").partition(":")[0] or None}
    if record.quality is not None:
        found |= _fidelity(record.quality)
    if record.oracle is not None:
        found |= oracle(record.oracle)
    if record.confidence is not None:
        found |= _confidence(record.confidence)
    if record.robustness is not None and record.quality is not None:
        found |= _robustness(record.robustness, record.quality)
    return found | _scenarios(record.scenarios)


def _fidelity(quality: Quality) -> dict[str, Any]:
    figures = {name: quality.fidelity[name] for name in _CLOSENESS if name in quality.fidelity}
    ranges = (bounds(name, interval) for name, interval in quality.agreement.items())
    return {**figures, **{name: value for found in ranges for name, value in found.items()}}


def _confidence(found: Confidence) -> dict[str, Any]:
    return {
        **bounds("ece", found.ece),
        "ece_debiased": found.ece_debiased,
        **bounds("ece_change", found.ece_change),
        **bounds("nll", found.nll),
        **bounds("nll_change", found.nll_change),
        **bounds("brier", found.brier),
        **bounds("brier_change", found.brier_change),
    }


def _robustness(found: Robustness, quality: Quality) -> dict[str, Any]:
    scale = 100.0 if quality.unit == "%" else 1.0
    better = quality.higher_is_better
    return {
        **bounds("corrupted_quality", found.value, scale),
        **bounds("corrupted_drop", mirrored(found.difference) if better else found.difference, scale),
        **bounds("corrupted_extra", mirrored(found.extra) if better else found.extra, scale),
        "corrupted_error_ratio": found.relative_error,
        "corruptions": len(found.corrupted) or None,
        "robustness_reason": found.reason or None,
    }


def _scenarios(results: Iterable[ScenarioResult]) -> dict[str, Any]:
    known = {result.scenario: result for result in results}
    figures = {name: result.figures for name, result in known.items() if not result.reason}
    columns = {
        "single_stream_p50_ns": ("single_stream", "p50_ns"), "single_stream_p90_ns": ("single_stream", "p90_ns"),
        "offline_per_s": ("offline", "samples_per_s"),
        "server_per_s": ("server", "qps"), "server_p99_ns": ("server", "p99_ns"),
        "server_p99_limit_ns": ("server", "p99_limit_ns"),
        "sustained_p50_ns": ("sustained", "p50_ns"), "sustained_slowdown": ("sustained", "slowdown"),
    }  # fmt: skip
    found: dict[str, Any] = {
        column: value
        for column, (name, key) in columns.items()
        if (value := figures.get(name, {}).get(key)) is not None and math.isfinite(value)
    }
    doubts = [f"{name}: {why}" for name, result in known.items() if (why := _doubt(result))]
    return found | ({"scenarios_doubt": "; ".join(doubts) or None} if known else {})


def _doubt(result: ScenarioResult) -> str:
    """Say why a scenario's figure is missing or not valid."""
    if result.reason:
        return result.reason
    if result.figures.get("valid") == 0:
        return "LoadGen calls the run invalid"
    if result.scenario == "server" and not result.figures.get("qps"):
        return "no rate keeps the limit"
    hiccup = result.figures.get("hiccup", 0.0)
    return f"{hiccup:.1%} of the time the CPU was not ours" if hiccup > 0.01 else ""


def scenario_lines(rows: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    """Return a line for each row that a load generator drove."""
    return tuple(_scenario_line(item) for item in rows if _driven(item))


def _driven(item: Row) -> bool:
    names = ("single_stream_p90_ns", "offline_per_s", "server_per_s", "sustained_p50_ns", "scenarios_doubt")
    return any(item.get(name) is not None for name in names)


def _scenario_line(item: Row) -> tuple[str, ...]:
    slowdown = item.get("sustained_slowdown")
    server = _plain(item.get("server_per_s"), 1, " queries/s")
    if item.get("server_p99_limit_ns") is not None:
        server += f", p99 under {_plain(item['server_p99_limit_ns'], 1e6, ' ms')}"
    sustained = _plain(item.get("sustained_p50_ns"), 1e6, " ms")
    return (
        str(item["method"]),
        str(item["target"]),
        _plain(item.get("single_stream_p90_ns"), 1e6, " ms"),
        _plain(item.get("offline_per_s"), 1, " items/s"),
        server,
        sustained if slowdown is None else f"{sustained}, end/start {slowdown:.3f}",
        str(item.get("scenarios_doubt") or "yes"),
    )


def _plain(value: float | None, unit: float, word: str) -> str:
    return UNKNOWN if value is None else f"{plain(value / unit)}{word}"


def sustained_order(rows: Sequence[Row]) -> Iterable[str]:
    """Compare the order of a section's cells under lasting load with their order in bursts.

    Only pairs that are 5 % apart in both count: closer ones are in no order.
    """
    known = [item for item in rows if item.get("sustained_p50_ns") and item.get("p50_ns")]
    logs = [
        (a, b, math.log(a["p50_ns"] / b["p50_ns"]), math.log(a["sustained_p50_ns"] / b["sustained_p50_ns"]))
        for a, b in itertools.combinations(known, 2)
    ]
    apart = [pair for pair in logs if min(abs(pair[2]), abs(pair[3])) > math.log1p(APART)]
    if not logs:
        return
    turned = [f"{_name(a)} / {_name(b)}" for a, b, burst, lasting in apart if burst * lasting < 0]
    said = f"under lasting load {len(apart) - len(turned)} of {len(apart)} pairs keep the order of the bursts"
    close = len(logs) - len(apart)
    rest = f"; {close} more are within {APART:.0%} of each other" if close else ""
    yield said + rest + (f"; turned: {', '.join(turned)}" if turned else "")


def _name(item: Row) -> str:
    return f"{item['method']} on {item['target']}"


def trust_lines(rows: Sequence[Row], unit: str) -> tuple[tuple[str, ...], ...]:
    """Return a line for each row with robustness, and, where any has it, for the others' calibration error too."""
    if all(item.get("corrupted_quality") is None and item.get("robustness_reason") is None for item in rows):
        return ()
    return tuple(_trust_line(item, unit) for item in rows)


def _trust_line(item: Row, unit: str) -> tuple[str, ...]:
    drift = item.get("oracle_sqnr_db")
    return (
        str(item["method"]),
        str(item["target"]),
        str(item["robustness_reason"]) if item.get("robustness_reason") else _figure(item, "corrupted_quality"),
        _figure(item, "corrupted_drop", f" {unit}".rstrip()),
        _figure(item, "corrupted_extra", f" {unit}".rstrip()),
        _figure(item, "ece"),
        _figure(item, "ece_change"),
        _figure(item, "nll"),
        UNKNOWN if drift is None else f"{plain(drift)} dB",
    )


def _figure(item: Row, name: str, unit: str = "") -> str:
    if item.get(name) is None:
        return UNKNOWN
    point, span = ranged(item[name], item[f"{name}_low"], item[f"{name}_high"])
    return f"{point}{unit} ({span})" if span else f"{point}{unit}"
