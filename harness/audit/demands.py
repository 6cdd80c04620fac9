"""The demands, by name: what ``harness verify`` prints with a breach, and lists on request."""

from __future__ import annotations

from collections.abc import Mapping

DEMANDS: Mapping[str, str] = {
    # the files
    "integrity": "every file is whole, of a known schema, and as the hash chain lists it; figures follow from samples",
    # the raw launch-sets
    "set-name": "a launch-set lies under the name of its group and index",
    "set-members": "a launch belongs to a member of its set, and the anchor is a member",
    "set-index": "a launch names the set that it lies in",
    "set-seconds": "a set lasts at least as long as what ran inside it",
    "fresh-process": "each launch of a set is a process of its own",
    "turns": "one member runs at a time: no two launches of a set share a round and a position",
    "samples": "every iteration took a positive time",
    "wall-time": "the iterations of a batch fit into its wall time, and fill it: the loop is closed",
    "cpu-time": "a batch uses no more CPU time than the host's cores can give",
    "repeated-samples": "no two batches hold the same nanoseconds, and no batch is constant",
    "warm-up": "a launch warms up as long as its profile asks",
    "rounds": "a launch holds the rounds of its profile",
    "batch-size": "a batch holds the iterations of its profile",
    "threads": "the runtime used the threads that were asked for, and the host has them",
    "affinity": "a launch was given at least as many CPUs as it has threads",
    "noise-verdict": "a launch's noise verdict is no milder than its evidence",
    "discard-reason": "a launch that does not count says why",
    "start-times": "start, load and first inference took a positive time",
    # the run
    "overlap": "launch-sets do not overlap: one process measures at a time",
    "outside-run": "what was measured lies between the start and the end of the run",
    "missing-record": "every cell that was measured in a finished run has a record",
    # the records
    "sets": "a cell has the launch-sets that its profile asks for",
    "profile": "a record claims the profile of its run",
    "label": "a record's label names the steps of its pipeline",
    "seed": "every step of the lineage ran with the run's seed",
    "anchor": "a cell is compared with the baseline of its own workload, target and options",
    "anchor-precision": "the anchor ran in the precision that the record names",
    "part": "memory, quality, oracle, placement and layers are those that the untimed launches wrote",
    "inputs": "the untimed launches ran the artifact that the record names",
    "incomplete": "an ok cell has an artifact, memory and latency",
    "artifact": "an artifact has a hash and a size, and is stored smaller only where the record says how",
    "memory": "the peak is the largest of the phases, and above the runtime's floor",
    "no-proof": "an ok cell shows what ran, or says why that is not known",
    "coverage": "coverage follows from the placements",
    "answers": "an ok baseline, or cell that must keep the function, is as near to the reference as it has to be",
    "flag": "every flag that the evidence asks for is set",
    "floor": "no cell is faster than its multiply-adds allow, and its floor follows from what ran",
    "energy": "joules follow from their windows, of a level that names its source; what is not available says why",
    "quality": "intervals, flips and p-value follow from the per-item statistics",
    "agreement": "shares of equal first choices and their intervals follow from the per-item statistics",
    "confidence": "calibration error, log-loss and Brier score follow from the per-item statistics",
    "robustness": "the metric under corruption and its differences follow from the per-item statistics",
}
