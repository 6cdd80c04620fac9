"""The columns of the table: what the documentation, the exports and the checks are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["text", "number", "count", "flag"]
Direction = Literal["", "higher is better", "lower is better", "as higher_is_better says"]

HIGH: Direction = "higher is better"
LOW: Direction = "lower is better"
METRIC: Direction = "as higher_is_better says"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        unit: Of its numbers; empty for text and plain counts.
        direction: Which end is good, where one is.
    """

    name: str
    unit: str
    meaning: str
    direction: Direction = ""
    dtype: Dtype = "number"

    @property
    def pandas_dtype(self) -> str:
        """The dtype of the column in the table; each can hold "not known"."""
        return {"text": "object", "number": "float64", "count": "Int64", "flag": "boolean"}[self.dtype]


def _text(name: str, meaning: str) -> Column:
    return Column(name, "", meaning, dtype="text")


def _count(name: str, unit: str, meaning: str, direction: Direction = "") -> Column:
    return Column(name, unit, meaning, direction, "count")


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "", meaning, dtype="flag")


_WHAT = (
    _text("host", "folder name of the host"),
    _text("run", "run_id of the run that the row comes from"),
    _text("profile", "how much was measured: quick, standard or publish"),
    _text("workload", "workload with its parameters"),
    _text("method", "pipeline of compression steps, as the grammar writes it"),
    _text("target", "runtime with its parameters"),
    _count("threads", "", "CPU threads"),
    _count("batch", "items", "items per inference"),
    _text("status", "ok, not-applicable, unavailable, failed, timeout, crashed or oom"),
    _text("stage", "where a row that is not ok ended"),
    _text("blame", "which plugin it ended in"),
    _text("reason", "why it is not ok, in a sentence"),
    _text("kind", "measured, estimated, simulated or inferred; never ranked together"),
    _flag("ranked", "takes part in rankings: ok, measured, with an anchor, and a target that runs models"),
    _text("division", "gated where the row passes the gate that was given, else open; without a gate all are open"),
    _count("rank_best", "", "best rank by speed that the evidence allows, on its target and in its division", LOW),
    _count("rank_worst", "", "worst such rank; more than the best is a tie", LOW),
    _count("rank_of", "rows", "how many are ranked together"),
    _count("cross_rank_best", "", "the same across targets, through the link sets", LOW),
    _count("cross_rank_worst", "", "worst such rank", LOW),
    _count("cross_rank_of", "rows", "how many are ranked together"),
)

_QUALITY = (
    _text("metric", "the task metric on the test split"),
    _text("metric_unit", "unit of quality, its bounds and the drop; % is 0..100"),
    _flag("higher_is_better", "direction of the metric"),
    Column("quality", "metric_unit", "the metric", METRIC),
    Column("quality_low", "metric_unit", "lower end of its 95 % interval", METRIC),
    Column("quality_high", "metric_unit", "upper end of its 95 % interval", METRIC),
    Column("drop", "metric_unit", "how much worse than the anchor, paired by item; negative is better than it", LOW),
    Column("drop_low", "metric_unit", "lower end of its 95 % interval", LOW),
    Column("drop_high", "metric_unit", "upper end of its 95 % interval", LOW),
    Column("retained", "%", "share of the float anchor's quality that is kept; 100 less the growth of an error", HIGH),
    Column("retained_low", "%", "lower end of its 95 % interval, from the paired difference", HIGH),
    Column("retained_high", "%", "upper end of its 95 % interval", HIGH),
    _flag("pass_99", "keeps 99 % of the float anchor's quality, by the point estimate"),
    _flag("pass_99_interval", "the same by the lower end of the interval"),
    _flag("pass_99_9", "keeps 99.9 %, by the point estimate"),
    _flag("pass_99_9_interval", "the same by the lower end of the interval"),
    _count("items", "items", "size of the test split"),
    Column("flips", "share 0..1", "items whose correctness changed against the anchor", LOW),
    _count("lost", "items", "items that only the anchor got right", LOW),
    _count("gained", "items", "items that only this cell got right", HIGH),
    Column("p_value", "", "exact McNemar test of lost against gained"),
    _flag("underpowered", "the interval is wider than half the drop that a 99 % gate allows"),
    Column("top1_agreement", "share 0..1", "items with the anchor's first choice", HIGH),
    Column("top1_agreement_low", "share 0..1", "lower end of its 95 % interval (Wilson)", HIGH),
    Column("top1_agreement_high", "share 0..1", "upper end of its 95 % interval", HIGH),
    Column("sqnr_db", "dB", "signal to quantisation noise of the outputs against the anchor's", HIGH),
    _text("oracle", "which program gave the reference outputs, or why there are none"),
    Column("oracle_sqnr_db", "dB", "signal to noise of the outputs against the reference: the worst output", HIGH),
    Column("oracle_cosine", "", "cosine to the reference, mean over items: the worst output", HIGH),
    Column("oracle_max_abs_error", "", "largest difference of an element from the reference", LOW),
    Column("oracle_mean_abs_error", "", "mean difference of an output's elements: the worst output", LOW),
    Column("oracle_agreement", "share 0..1", "declared choices that are the reference's", HIGH),
    Column("oracle_slice_db", "dB", "signal to noise of the worst slice of any axis of any output", HIGH),
    _text("oracle_slice", "which slice that is: output, axis with the items first, index"),
    _count("oracle_worst_item", "", "index of the item that is furthest off in the worst output"),
)

_SPEED = (
    Column("p50_ns", "ns", "median latency of one inference: median over launches of each launch's median", LOW),
    Column("p50_low_ns", "ns", "lower end of its 95 % interval; empty under 6 launches", LOW),
    Column("p50_high_ns", "ns", "upper end of its 95 % interval", LOW),
    Column("p90_ns", "ns", "90th percentile; empty where the sample cannot carry it", LOW),
    Column("p99_ns", "ns", "99th percentile; empty where the sample cannot carry it", LOW),
    Column(
        "time_to_first_inference_ns",
        "ns",
        "from a fresh process to its first result: start, load and one inference; empty in runs of older versions",
        LOW,
    ),
    Column("throughput_per_s", "items/s", "items per second, one inference after another", HIGH),
    Column("speedup", "ratio", "t(anchor) / t(cell), paired within rounds; above 1 is faster; 1 for the anchor", HIGH),
    Column("speedup_low", "ratio", "lower end of its 95 % interval", HIGH),
    Column("speedup_high", "ratio", "upper end of its 95 % interval", HIGH),
    _text("verdict", "faster, slower, equivalent, unresolved, anchor or no anchor; unresolved does not mean the same"),
    _text("noise", "ok, suspect or noisy: whether the latency can be trusted"),
    _text("noise_reasons", "why it is not ok"),
    _count("launches", "processes", "fresh processes that were used"),
    _count("discarded", "processes", "launches left out as noisy; kept in the raw samples"),
    Column("cross_speedup", "ratio", "speed-up against the anchor of cross_reference, through the link sets", HIGH),
    Column("cross_speedup_low", "ratio", "lower end of its interval", HIGH),
    Column("cross_speedup_high", "ratio", "upper end of its interval", HIGH),
    _text("cross_reference", "the first target by name that has an ok anchor; its anchor has a cross_speedup of 1"),
)

_COST = (
    _count("peak_memory_bytes", "bytes", "peak resident memory of a fresh process", LOW),
    _count("model_memory_bytes", "bytes", "peak less the runtime's floor: what the model costs", LOW),
    _count("device_memory_bytes", "bytes", "on a device with memory of its own", LOW),
    _count("artifact_bytes", "bytes", "the file that the runtime loads", LOW),
    _count("stored_bytes", "bytes", "what a disk or a download needs; a tested decoder restores the artifact", LOW),
    _text("stored_as", "how it is stored, where not as the artifact itself"),
    Column("compression", "ratio", "the anchor's artifact_bytes / this artifact_bytes", HIGH),
    Column("stored_compression", "ratio", "the anchor's stored_bytes / this stored_bytes", HIGH),
    _count("weight_bytes", "bytes", "weights in the artifact, as they are stored", LOW),
    _text("weight_dtypes", "their dtypes, the largest share first"),
    Column("floor_ns", "ns", "physical floor: its MACs and weight bytes at this host's measured ceilings"),
    Column("percent_of_roofline", "%", "floor_ns / p50_ns: the share of what the host can do", HIGH),
    _text("roofline_bound", "the nearer ceiling: compute or memory"),
    _text("roofline_reason", "why there is no floor, or what of the ceilings is not known"),
    Column("energy_j", "J", "energy of one inference, with what idles meanwhile: median over windows", LOW),
    Column("energy_low_j", "J", "lower end of its 95 % interval; empty under 6 windows", LOW),
    Column("energy_high_j", "J", "upper end of its 95 % interval", LOW),
    Column("energy_active_j", "J", "the same less the power of the idle machine", LOW),
    Column("watts", "W", "mean power while inferences ran back to back", LOW),
    Column("idle_watts", "W", "mean power before and after, with nothing running"),
    Column("items_per_j", "items/J", "items per joule: throughput per watt", HIGH),
    _text("energy_level", "E3 wall meter, E2 sensor on the chip, E0 not available; never ranked together"),
    _text("energy_source", "which sensors or which meter"),
    _text("energy_reason", "why it is not available"),
)

_HOW = (
    _text("precision", "precision that lowering produced"),
    _text("how", "which quantizer with which settings made it"),
    _text("wanted", "precision that coverage counts"),
    Column(
        "coverage", "share 0..1", "what ran, or of weight-only is stored, as the label says: strict judges it", HIGH
    ),
    _text("coverage_by", "what coverage is a share of: macs, weights, or unknown"),
    Column(
        "coverage_weights", "share 0..1", "weights, by their number, that the artifact stores as the label says", HIGH
    ),
    Column("coverage_macs", "share 0..1", "multiply-accumulates that ran in the wanted precision", HIGH),
    Column("coverage_ops", "share 0..1", "operators that ran in it; nothing is judged by their number", HIGH),
    Column("coverage_time", "share 0..1", "time spent in it", HIGH),
    _text("coverage_reason", "why a coverage is not known"),
    _count("parameters", "", "parameters of the compressed model", LOW),
    _count("nonzero_parameters", "", "those that are not zero", LOW),
    _count("macs", "MACs", "multiply-accumulates per inference at batch 1", LOW),
    _text("asked", "what the steps were asked for"),
    _text("achieved", "what they did, by the counts of the model before and after"),
    Column("parameters_removed", "share 0..1", "of the trained parameters, gone; negative where there are more"),
    Column("nonzero_parameters_removed", "share 0..1", "of its parameters that were not zero, zero now or gone"),
    Column("macs_removed", "share 0..1", "of its multiply-accumulates, gone"),
    Column("weight_bytes_removed", "share 0..1", "of the anchor's weight_bytes, gone"),
    _text("anchor_id", "cell_id of what the row is compared with"),
    _flag("is_anchor", "other rows are compared with this one"),
    _text("anchor_precision", "precision of the anchor"),
    _text("anchor_reason", "why there is no anchor"),
    _text("flags", "facts to know before using the row, separated by spaces"),
    _text("note", "what the figures come to, in words, where a method brings nothing or less than its name says"),
    _text("why", "inferred from what ran (operators, precisions, devices): why a row is not faster than its anchor"),
    Column("build_s", "s", "time to train, compress, export and lower"),
    _text("runtime", "runtime and version"),
    _flag("overhead", "a target that runs no model: the row is the harness's own cost"),
    _text("cell_id", "hash of the request: equal across hosts and versions"),
    _text("inputs_sha256", "hash of artifact, software and host: equal for the same measurement"),
    _text("host_id", "hash of the host's stable facts"),
    _text("finished_utc", "when the cell was finished"),
)

_STAGES = (
    _text("stage_step", "with --stages: the pipeline's last step, whose own effect the next columns hold"),
    _text("stage_after", "the pipeline that ends one step before"),
    Column("own_drop", "metric_unit", "how much worse the step alone made it, paired by item; negative is better", LOW),
    Column(
        "own_drop_low", "metric_unit", "lower end of its 95 % interval; empty where items are not right or wrong", LOW
    ),
    Column("own_drop_high", "metric_unit", "upper end of its 95 % interval", LOW),
    Column("own_speedup", "ratio", "t(one step before) / t(cell), paired within rounds", HIGH),
    Column("own_speedup_low", "ratio", "lower end of its 95 % interval", HIGH),
    Column("own_speedup_high", "ratio", "upper end of its 95 % interval", HIGH),
    Column("own_compression", "ratio", "artifact_bytes one step before / this artifact_bytes", HIGH),
    _text("parts", "of a split network, each part alone: `p50_ns/low/high/bytes/macs`, separated by spaces"),
)


def _ranged(name: str, unit: str, meaning: str, direction: Direction, kind: str = "") -> tuple[Column, ...]:
    """Return a figure's column and those of its interval's ends."""
    return (
        Column(name, unit, f"{meaning}{kind}", direction),
        Column(f"{name}_low", unit, "lower end of its 95 % interval", direction),
        Column(f"{name}_high", unit, "upper end of its 95 % interval", direction),
    )


_TRUST = (
    *_ranged("top5_agreement", "share 0..1", "items whose first choice by the anchor is among the first five", HIGH),
    Column("kl_mean", "nats", "KL(anchor, cell) between the softmaxes, mean over items", LOW),
    Column("kl_p99", "nats", "its 99th percentile over items", LOW),
    Column("cosine_p1", "", "1st percentile over items of the cosine to the anchor's outputs", HIGH),
    Column("max_abs_error", "", "largest difference of an output from the anchor's", LOW),
    Column("outside_share", "share 0..1", "of outputs further from the anchor's than 0.001 + 0.1 %", LOW),
    *_ranged("ece", "share 0..1", "expected calibration error, 15 bins of equal mass; biased upwards where small", LOW),
    Column("ece_debiased", "share 0..1", "the same less what chance adds to each bin", LOW),
    *_ranged("ece_change", "share 0..1", "the error less the anchor's, paired by item", LOW),
    *_ranged("nll", "nats", "mean negative log-likelihood of the right class", LOW),
    *_ranged("nll_change", "nats", "the same less the anchor's, paired by item", LOW),
    *_ranged("brier", "0..2", "Brier score, summed over classes", LOW),
    *_ranged("brier_change", "0..2", "the same less the anchor's, paired by item", LOW),
    *_ranged("corrupted_quality", "metric_unit", "with --robustness: the metric on corrupted test images", METRIC),
    *_ranged("corrupted_drop", "metric_unit", "how much worse than the anchor on the same corrupted images", LOW),
    *_ranged("corrupted_extra", "metric_unit", "that drop less the drop on the same images uncorrupted", LOW),
    Column("corrupted_error_ratio", "ratio", "error over the anchor's error, mean over corruptions", LOW),
    _count("corruptions", "", "corruptions times severities"),
    _text("robustness_reason", "why there is no robustness"),
)

_SCENARIOS = (
    Column("single_stream_p50_ns", "ns", "LoadGen SingleStream: median", LOW),
    Column("single_stream_p90_ns", "ns", "LoadGen SingleStream: 90th percentile", LOW),
    Column("offline_per_s", "items/s", "LoadGen Offline: throughput at this batch", HIGH),
    Column(
        "server_per_s",
        "items/s",
        "LoadGen Server: highest Poisson rate whose p99 stays under the limit",
        HIGH,
    ),
    Column("server_p99_ns", "ns", "p99 at that rate", LOW),
    Column("server_p99_limit_ns", "ns", "the limit"),
    Column("sustained_p50_ns", "ns", "median under load that lasts for minutes", LOW),
    Column("sustained_slowdown", "ratio", "median at its end over that at its beginning", LOW),
    _text("scenarios_doubt", "which scenarios are not valid or missing, and why"),
    _text("host_tier", "T1: absolute times may be ranked; T2: cores are shared, only ratios; else not known"),
)

COLUMNS = (*_WHAT, *_QUALITY, *_SPEED, *_COST, *_HOW, *_STAGES, *_TRUST, *_SCENARIOS)


def columns_markdown() -> str:
    """Return the documentation of the columns as a Markdown table."""
    lines = ["| column | unit | meaning | direction |", "|---|---|---|---|"]
    lines += [f"| `{item.name}` | {item.unit} | {item.meaning} | {item.direction} |" for item in COLUMNS]
    return "\n".join(lines) + "\n"
