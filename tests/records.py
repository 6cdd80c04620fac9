"""Hand-made but realistic records: a factory for what a run leaves behind."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.plan import Request
from harness.store import Run, RunInfo
from harness.types import (
    SCHEMA,
    Artifact,
    Batch,
    Cell,
    Coverage,
    Interval,
    Latency,
    Launch,
    LaunchSet,
    Loaded,
    Memory,
    Noise,
    Options,
    Quality,
    Record,
    SharedObject,
    Step,
    StepRecord,
)

HOST_ID = "3f9ac0de" + "0" * 56
PLAN = "7b1d44aa" + "0" * 56
WORKLOAD = "digits-resnet8"


@dataclass(frozen=True)
class Host:
    """The fields of a fingerprint that the store reads."""

    host_id: str = HOST_ID
    facts: dict[str, str] = field(default_factory=dict)
    state: Any = None


def loaded(build_id: str = "d7a06811431381149792afebc6a4ddc23901e794") -> Loaded:
    none = SharedObject("numpy.libs/libopenblas.so", 25_409_073, None, "its linker wrote no build-id")
    return Loaded((none, SharedObject("onnxruntime/capi/onnxruntime_pybind11_state.so", 30_893_160, build_id)))


def info(**changes: Any) -> RunInfo:
    base = RunInfo(
        schema=SCHEMA,
        run_id="20261121T101112Z-7b1d44aa",
        request=Request(workloads=(WORKLOAD,), methods=("baseline", "int8"), threads=("1",)),
        plan_sha256=PLAN,
        profile="quick",
        seed=0,
        started_utc="2026-11-21T10:11:12+00:00",
        host_id=HOST_ID,
        host_facts={"cpu": "Xeon 2.5 GHz", "cores": "2", "governor": "not available: no cpufreq"},
        host_state={"loadavg": "0.31"},
        packages={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
        plugins={"onnxruntime": "compression-harness 0.1.0"},
        command=("harness", "bench", "--targets", "all"),
        harness_version="0.1.0",
        host_name="Build Box.local",
        loaded={"onnxruntime": loaded()},
    )
    return replace(base, **changes)


def step(text: str) -> Step:
    name, *params = text.split(":")
    return Step(name, {key: float(value) for key, value in (item.split("=") for item in params)})


def cell(method: str = "baseline", target: str = "onnxruntime", workload: str = WORKLOAD, **options: Any) -> Cell:
    return Cell(Step(workload), tuple(step(part) for part in method.split("+")), Step(target), Options(**options))


def interval(point: float, share: float, method: str = "order statistics") -> Interval:
    return Interval(point, point * (1 - share), point * (1 + share), 0.95, method)


def latency(
    p50_ms: float, *, speed_up: float | None = None, verdict: str = "", noise: str = "ok", share: float = 0.02
) -> Latency:
    p50 = p50_ms * 1e6
    ratio = None if speed_up is None else interval(1 / speed_up, share)
    word = verdict or ("anchor" if ratio is None else "faster" if 1 / speed_up * (1 + share) < 0.95 else "unresolved")
    return Latency(
        p50_ns=interval(p50, share),
        p90_ns=p50 * 1.08,
        p99_ns=None,
        min_ns=p50 * 0.96,
        mean_ns=p50 * 1.02,
        throughput_per_s=1e9 / (p50 * 1.02),
        robust_cv=share / 2,
        launches=6,
        discarded=0 if noise == "ok" else 1,
        unsteady=0,
        samples=180,
        ratio=ratio,
        ratio_p10=ratio,
        verdict=word,
        noise=noise,
        reasons=() if noise == "ok" else ("robust CV 7.1 % of launch medians",),
        time_to_first_inference_ns=p50 * 5,
    )


def quality(
    value: float = 0.9933, drop: float | None = None, *, lost: int = 1, gained: int = 0, items: int = 450
) -> Quality:
    difference = (
        None if drop is None else Interval(-drop, -drop - 0.007, -drop + 0.006, 0.95, "Newcombe paired (method 10)")
    )
    low, high = wilson(value, items)
    same = 1 - (lost + gained) / items
    return Quality(
        metric="accuracy",
        unit="%",
        higher_is_better=True,
        items=items,
        value=Interval(value, low, high, 0.95, "Wilson"),
        difference=difference,
        flips=None if drop is None else (lost + gained) / items,
        lost=None if drop is None else lost,
        gained=None if drop is None else gained,
        p_value=None if drop is None else 1.0,
        underpowered=True,
        fidelity={} if drop is None else {"top1_agreement": same, "sqnr_db": 31.2},
        agreement={} if drop is None else {"top1_agreement": Interval(same, *wilson(same, items), 0.95, "Wilson")},
    )


def rmse(value: float = 54.1, difference: float | None = None) -> Quality:
    """A metric that is better when it is lower; ``difference`` is cell minus anchor."""
    spread = (
        None
        if difference is None
        else Interval(difference, difference - 0.4, difference + 0.5, 0.95, "paired bootstrap")
    )
    return Quality(
        metric="RMSE",
        unit="points",
        higher_is_better=False,
        items=89,
        value=Interval(value, value - 6.0, value + 6.5, 0.95, "bootstrap"),
        difference=spread,
        underpowered=True,
    )


def wilson(p: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def memory(peak_mib: float = 61.2) -> Memory:
    peak = int(peak_mib * 2**20)
    return Memory(
        floor_bytes=int(peak * 0.9),
        load_peak_bytes=int(peak * 0.98),
        run_peak_bytes=peak,
        peak_bytes=peak,
        steady_bytes=int(peak * 0.97),
        launches=1,
    )


def artifact(
    size: int = 318_000, realised: str = "float32", stored: int | None = None, stored_as: str = ""
) -> Artifact:
    return Artifact(
        path=Path("/cache/model.onnx"),
        format="onnx",
        sha256="ab" * 32,
        realised=realised,
        how="QDQ per channel, minmax over 256 items" if realised == "int8" else "as exported",
        artifact_bytes=size,
        stored_bytes=size if stored is None else stored,
        stored_as=stored_as,
    )


def lineage(parameters: int = 77_786, nonzero: int | None = None, macs: int = 12_501_632) -> tuple[StepRecord, ...]:
    effect = {
        "parameters": parameters,
        "nonzero_parameters": nonzero or parameters,
        "macs": macs,
        "selection_score": 0.99,
    }
    return (StepRecord("fit", WORKLOAD, {"epochs": 10}, 0, 41.5, "workloads", "0.1.0", effect),)


def record(method: str = "baseline", target: str = "onnxruntime", workload: str = WORKLOAD, **changes: Any) -> Record:
    options = {key: changes.pop(key) for key in ("threads", "batch") if key in changes}
    made = cell(method, target, workload, **options)
    anchor = cell("baseline", target, workload, **options)
    is_anchor = made == anchor
    base = Record(
        schema=SCHEMA,
        cell=made,
        cell_id=made.cell_id,
        status="ok",
        inputs_sha256="cd" * 32,
        host_id=HOST_ID,
        profile="quick",
        labels={"workload": workload, "method": method, "target": target},
        anchor=anchor.cell_id,
        anchor_precision="float32",
        lineage=lineage(),
        artifact=artifact(),
        latency=latency(3.05) if is_anchor else latency(1.21, speed_up=2.52),
        memory=memory(),
        quality=quality() if is_anchor else quality(0.9911, 0.0022),
        coverage=Coverage("float32", 1.0, 1.0, None),
        provenance={"runtime": f"{target} 1.0", "sparsity_kernels": "none", "target_plugin": target},
        seconds={"fit": 41.5, "export": 1.2, "lower": 0.8, "memory": 2.1, "accuracy": 3.4, "latency": 9.0},
        finished_utc="2026-11-21T10:20:00+00:00",
    )
    return replace(base, **changes)


def failed(method: str, target: str, status: str, stage: str, blame: str, reason: str, **changes: Any) -> Record:
    base = record(method, target)
    return replace(
        base,
        status=status,
        stage=stage,
        blame=blame,
        reason=reason,
        artifact=None,
        latency=None,
        memory=None,
        quality=None,
        coverage=None,
        seconds={},
        **changes,
    )


def board_records() -> tuple[Record, ...]:
    """A run of the default workload over three targets, with all that a board has to show."""
    onnx, vino, lite = "onnxruntime", "openvino", "tflite"
    small = replace(record().coverage, wanted="int8")
    return (
        record(),
        record("int8", onnx, artifact=artifact(98_304, "int8"), coverage=replace(small, by_macs=0.97, by_op=0.81)),
        record(
            "magnitude-pruning:ratio=0.5",
            onnx,
            artifact=artifact(318_000, stored=182_000, stored_as="bitmask + values"),
            latency=latency(3.03, speed_up=1.006, verdict="equivalent"),
            lineage=lineage(nonzero=39_000),
            quality=quality(0.9933, 0.0, gained=1),
            flags=("stored_sparse_executed_dense",),
        ),
        record(
            "channel-pruning:ratio=0.5+int8",
            onnx,
            artifact=artifact(41_200, "int8"),
            coverage=replace(small, by_macs=0.95, by_op=0.8),
            latency=latency(0.412, speed_up=7.4),
            quality=quality(0.9778, 0.0155, lost=9, gained=2),
            lineage=lineage(20_114, macs=3_301_120),
            memory=memory(60.1),
        ),
        record(
            "binarization",
            onnx,
            artifact=artifact(318_000, stored=24_400, stored_as="1-bit packed"),
            latency=latency(3.21, speed_up=0.95, verdict="unresolved", noise="noisy", share=0.09),
            quality=quality(0.9844, 0.0089, lost=6, gained=2),
            flags=("stored_1bit_executed_float32", "noisy"),
        ),
        record("baseline", vino, latency=latency(2.48, noise="suspect"), memory=memory(88.7), flags=("suspect",)),
        record(
            "int8",
            vino,
            latency=latency(0.688, speed_up=3.61),
            artifact=artifact(101_900, "int8"),
            memory=memory(91.0),
            coverage=replace(small, by_macs=0.99, by_op=0.9),
        ),
        record(
            "dynamic-int8",
            vino,
            latency=latency(2.55, speed_up=0.973, verdict="slower", share=0.005),
            coverage=replace(small, by_macs=0.11, by_op=0.2),
            memory=memory(90.2),
            flags=("not_actually_quantised",),
        ),
        failed("fp16", lite, "crashed", "latency", "tflite", "the worker was killed by SIGSEGV in launch 1"),
        failed("dynamic-int8", lite, "not-applicable", "plan", "tflite", "tflite takes no dynamic int8 convolutions"),
        failed("int8", "tensorrt", "unavailable", "plan", "tensorrt", "no NVIDIA driver found; install tensorrt-cu13"),
        record(
            "baseline",
            "null",
            latency=latency(0.0123),
            memory=memory(30.3),
            quality=None,
            artifact=artifact(0),
            coverage=None,
            lineage=(),
            flags=("runs_no_model",),
        ),
    )


def noise(verdict: str = "ok", **changes: Any) -> Noise:
    base = Noise(
        cpu_wall=0.996,
        hiccup_before=0.001,
        hiccup_after=0.002,
        canary_before_gflops=101.2,
        canary_after_gflops=100.8,
        involuntary_switches_per_s=4.0,
        steal=0.001,
        psi_cpu=None,
        throttled=0,
        major_faults=0,
        verdict=verdict,
    )
    return replace(base, **changes)


def launch_set(
    group: str,
    index: int,
    members: dict[str, float],
    *,
    anchor: str | None,
    purpose: str = "variants",
    verdict: str = "ok",
    rounds: int = 4,
    iterations: int = 5,
    **changes: Any,
) -> LaunchSet:
    """A set in which each member takes its milliseconds, give or take the noise of a seeded host."""
    rng = random.Random(f"{group}/{index}")
    drift = 1 + 0.02 * rng.random()
    launches = tuple(
        _launch(cell_id, index, order, ms * drift, rng, noise(verdict, **changes), rounds, iterations)
        for order, (cell_id, ms) in enumerate(members.items())
    )
    return LaunchSet(
        schema=SCHEMA,
        group=group,
        index=index,
        purpose=purpose,
        anchor=anchor,
        members=tuple(members),
        started_utc="2026-11-21T10:12:00+00:00",
        seconds=2.5,
        launches=launches,
    )


def _launch(
    cell_id: str, index: int, order: int, ms: float, rng: random.Random, seen: Noise, rounds: int, iterations: int
) -> Launch:
    batches = []
    for number in range(rounds):
        ns = tuple(int(ms * 1e6 * (1 + 0.01 * rng.random())) for _ in range(iterations))
        batches.append(Batch(number, order, ns, sum(ns) + 1000, sum(ns), 0, 1, 0))
    return Launch(
        cell_id=cell_id,
        set_index=index,
        order=order,
        pid=4000 + order,
        load_ns=31_000_000,
        first_ns=9_000_000,
        warmup_iterations=10,
        warmup_ns=300_000_000,
        steady=True,
        inner_loops=1,
        affinity=(0,),
        threads_effective="1",
        batches=tuple(batches),
        noise=seen,
        ready_ns=47_000_000,
    )


def run_of(records: tuple[Record, ...], sets: tuple[LaunchSet, ...] = (), **changes: Any) -> Run:
    named = {f"{item.group}-{item.index:05d}": item for item in sets}
    return Run(Path("results/build-box/run"), info(**changes), records, named)
