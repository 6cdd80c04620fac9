"""Every check by name: which offers it is made on, and what it makes sure of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BUILD = ("workload", "method", "exporter", "target")
ALL = (*BUILD, "oracle")
NAMED = (*ALL, "bug")


@dataclass(frozen=True)
class About:
    """What a check is about."""

    kinds: tuple[str, ...]
    title: str


CHECKS: Mapping[str, About] = {
    "loads": About(("plugin",), "the module imports, its hooks run, and every offer is taken"),
    "imports": About(("plugin",), "importing the module and calling its hooks loads no framework"),
    "docs": About((*NAMED, "plugin"), "the module, the distribution, the summary and every parameter are documented"),
    "naming": About(NAMED, "names are kebab-case, and parameters snake_case"),
    "params": About(ALL, "parameters are described, in range by default, checked, and survive JSON"),
    "declarations": About(NAMED, "needs, reads, changes and formats are words that harness knows; reports are linked"),
    "runs": About(NAMED, "the plugin's function does its work, and returns what is due"),
    "unsupported": About(("method", "exporter", "target"), "what cannot be is said with Unsupported, nothing else"),
    "crash": About(ALL, "no call ends its process"),
    "time-limit": About(ALL, "every call returns in time"),
    "format": About(("workload", "method", "exporter", "target"), "the file is there, in the declared format"),
    "outside": About(ALL, "nothing is written outside the job's folder"),
    "input-kept": About((*BUILD[1:], "oracle"), "the incoming model and inputs are left as they were"),
    "seed": About(BUILD, "the same seed gives the same bytes"),
    "interface": About(("method", "exporter", "target"), "inputs and outputs keep their names, dtypes and shapes"),
    "finite": About(("method", "target"), "outputs hold no NaN and no infinity"),
    "reads": About(("method",), "only declared capability fields are read"),
    "test-split": About(("workload", "method"), "the test split is never asked for while building"),
    "effect": About(("method",), "the method changes what it says: size, zeros, MACs, precision or weights"),
    "effect-record": About(("method",), "the effect that the step wrote down is what is in the model"),
    "wants": About(("method",), "the precision that is asked for is the one that was announced"),
    "layers": About(("method",), "only layers stay that later steps and exporters know"),
    "threads-left": About(ALL, "no thread stays behind"),
    "files-left": About(("method", "exporter", "target"), "no file stays open"),
    "environment": About(ALL, "environment variables are left as they were"),
    "probe": About(("target",), "the probe says whether the target runs here, and why not, without raising"),
    "capabilities": About(("target",), "the declared capabilities are consistent"),
    "realised": About(("target",), "lowering realises the precision that was asked for, or says so in a flag"),
    "artifact": About(("target",), "the artifact's size and hash are those of its file"),
    "no-framework": About(("target",), "lowering needs no training framework"),
    "outputs": About(("exporter", "target", "oracle"), "outputs agree with the trained model's"),
    "dtypes": About(("target",), "arrays have the dtype and shape that the session declares"),
    "repeatable": About(("target",), "the same inputs give the same bits, in one session and in the next"),
    "batch": About(("target",), "an item's outputs do not depend on its batch, nor on the padding of a short last one"),
    "threads": About(("target",), "outputs do not depend on the number of threads"),
    "threads-honoured": About(("target",), "one thread means one thread"),
    "reopen": About(("target",), "a second session opens after the first was closed"),
    "close": About(("target",), "close frees what the session holds"),
    "placements": About(("target",), "placements are complete, and their shares and MACs sum up"),
    "splits": About(("workload",), "splits are as declared, disjoint, and the same every time"),
    "score": About(("workload",), "each item is scored by itself, and the metric is finite"),
    "independent": About(("bug",), "the right answer is known without the runtime, and is the same every time"),
    "known-gaps": About(ALL, "declared gaps still show"),
}  # fmt: skip
