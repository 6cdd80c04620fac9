"""Judge a cell's outputs: the task metric, its paired difference from the anchor, and fidelity."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench.blocks import Block
from harness.bench.oracle import judge, leaked, load_outputs, oracle_flags, refuse_wrong
from harness.bench.records import NO_DATA, PRECISION_LEAK, CheckPart, Context, placement_flags
from harness.build import Built
from harness.build.job import Workload
from harness.errors import Unsupported
from harness.explain import Where, first_line
from harness.explain import failure as explained
from harness.faults import called
from harness.measure import Member, Untimed, run_untimed
from harness.plan import PlannedCell, Request, Resolved, TargetState
from harness.plan.splits import needs_of
from harness.plugins import Registry
from harness.shards import Ragged
from harness.specs import MethodSpec
from harness.stats import Fidelity, fidelity, quality
from harness.stats.confidence import confidence, item_confidences
from harness.store import RunStore
from harness.store.layout import extra_scores
from harness.types import Confidence, Failure, OracleCheck, Quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE, AGREEMENT = "confidence", "agreement"  # names of the per-item statistics in the store
POST_TRAINING = ("none", "quantization")  # families of methods that keep what the model learned, unless they train
EVALUATION_BATCH = 32  # where batching cannot change a result; dynamic scales are found per batch, so never there


@dataclass
class Judge:
    """Evaluates the cells of one block; the anchor's outputs stay on disk until the block is done."""

    registry: Registry
    store: RunStore
    context: Context
    request: Request
    scratch: Path
    anchor_outputs: Mapping[str, Path] = field(default_factory=dict)
    recall: Callable[[], Mapping[str, Path]] | None = None

    def check(self, planned: PlannedCell, member: Member, built: Built, block: Block) -> CheckPart:
        """Run the test split once, reduce the outputs to per-item scores, and read the placement."""
        started = time.monotonic()
        ranked = self.registry.targets[planned.target.name].spec.ranked
        outputs = self.scratch / planned.cell.cell_id
        result = self._run(planned, member, built, outputs if ranked else None)
        if isinstance(result, Failure):
            return CheckPart(failure=result, seconds=time.monotonic() - started)
        if planned.runs_on == "here":
            self.store.note_loaded(planned.labels["target"], result.loaded)
        cover, flags = placement_flags(
            result.placements,
            built,
            result.placement_reason,
            self.context.sparsity(planned),
            claimed=any(self.registry.methods[step.name].spec.family != "none" for step in planned.pipeline),
        )
        part = CheckPart(
            placements=result.placements, coverage=cover, effective=result.effective, flags=flags,
            oracle=self._oracle(planned, built, result) if ranked else None,
        )  # fmt: skip
        part = self._judged(part, planned, built, result, block) if ranked else part
        self._drop(planned, result.outputs)
        return replace(part, seconds=time.monotonic() - started)

    def _judged(self, part: CheckPart, planned: PlannedCell, built: Built, result: Untimed, block: Block) -> CheckPart:
        """Refuse wrong answers, and judge the others by labels and by the anchor."""
        claims, own = NO_DATA not in built.model.flags, load_outputs(built.reference.files)
        try:
            if claims or own:
                refuse_infinite(load_outputs(result.outputs), own)
            refuse_wrong(part.oracle)
            if planned.is_anchor:
                self.anchor_outputs, self.recall = result.outputs, None
            with called():
                judged = self._quality(planned, built, result, block) if claims else None
                sure = self._confidence(planned, built, result, block) if claims else None
        except Unsupported as error:
            return replace(part, failure=Failure("failed", "accuracy", f"target {planned.target.name}", error.message))
        except Exception as error:  # noqa: BLE001  score and aggregate are a plugin's; a broken one costs its own cell
            where = Where("accuracy", f"workload {planned.workload.name}", "the outputs could not be judged")
            return replace(part, failure=explained(error, where))
        leaks = (PRECISION_LEAK,) if planned.is_anchor and leaked(part.oracle, built.artifact) else ()
        return replace(part, quality=judged, confidence=sure, flags=(*part.flags, *oracle_flags(part.oracle), *leaks))

    def _oracle(self, planned: PlannedCell, built: Built, result: Untimed) -> OracleCheck:
        spec = self.registry.workloads[planned.workload.name].spec
        outputs = load_outputs(result.outputs)
        view = Workload.of(spec, planned.workload.params)
        axes = view.classes(outputs) if view.task == "classification" else {}
        ranks = {name: getattr(array, "ndim", 0) for name, array in outputs.items()}
        choice = {name: axis % ranks[name] for name, axis in axes.items() if ranks[name] > 1}
        methods = [self.registry.methods[step.name].spec for step in planned.pipeline]
        exact = built.artifact.realised == "float32" and all(method.exact for method in methods)
        retrained = any(map(_retrains, methods, planned.pipeline))
        if built.reference.alone and result.batch != 1:
            why = f"an item's answer depends on the others in its call, and {result.batch} are answered at once here"
            return OracleCheck(reason=why)
        binding, tf32 = planned.is_anchor or exact, bool(planned.target.params.get("tf32"))
        try:
            return judge(
                outputs, built, result.placements, binding=binding, choice=choice, retrained=retrained, tf32=tf32
            )
        except Exception as error:  # noqa: BLE001  what cannot be compared costs the comparison, and says so
            return OracleCheck(reason=f"the outputs could not be compared: {first_line(str(error))}")

    def outputs(self, planned: PlannedCell, member: Member, built: Built) -> Mapping[str, Path]:
        """Run the test split of the anchor again for its outputs, where a resumed run has only its scores."""
        again = self.scratch / f"{planned.cell.cell_id}-again"
        result = self._run(planned, member, built, again)
        return {} if isinstance(result, Failure) else result.outputs

    def _drop(self, planned: PlannedCell, outputs: Mapping[str, Path]) -> None:
        if not planned.is_anchor:
            for path in outputs.values():
                path.unlink(missing_ok=True)

    def _run(self, planned: PlannedCell, member: Member, built: Built, outputs: Path | None) -> Untimed | Failure:
        return run_untimed(
            member,
            purposes=frozenset({"accuracy", "placement"}) if outputs else frozenset({"placement"}),
            batch=self._batch(planned, built),
            items=built.evaluation.items,
            outputs_to=outputs,
            timeout_s=self.request.timeout_s,
            memory_limit_bytes=self.request.memory_limit_bytes,
        )

    def _batch(self, planned: PlannedCell, built: Built) -> int:
        return evaluation_batch(planned, built, self.context.state(planned))

    def _quality(self, planned: PlannedCell, built: Built, result: Untimed, block: Block) -> Quality:
        spec = self.registry.workloads[planned.workload.name].spec
        view = Workload.of(spec, planned.workload.params)
        outputs = load_outputs(result.outputs)
        anchor = None if planned.is_anchor else self._anchor_scores(block)
        found = Fidelity({}, None)
        if not planned.is_anchor and not self.anchor_outputs and self.recall is not None:
            self.anchor_outputs, self.recall = self.recall(), None
        if not planned.is_anchor and self.anchor_outputs:
            found = fidelity(outputs, load_outputs(self.anchor_outputs), classes=view.classes(outputs))
        if found.agreement is not None:
            self.store.write_scores(extra_scores(planned.cell.cell_id, AGREEMENT), found.agreement)
        scores = None
        if built.evaluation.labelled and spec.score is not None:
            scores = view.score(outputs, load_labels(built))
            self.store.write_scores(planned.cell.cell_id, scores)
        judged = quality(
            scores,
            anchor,
            aggregate=spec.aggregate,
            metric=spec.metric if scores is not None else "fidelity",
            unit=spec.unit,
            higher_is_better=spec.higher_is_better,
            interval=spec.interval,
            items=built.evaluation.items,
            seed=self.request.seed,
            evaluation_batch=result.batch,
            fidelity=found.figures,
            agreement=found.agreement,
        )
        for interval in (judged.value, judged.difference):
            if interval is not None and not math.isfinite(interval.point):
                raise ValueError(f"the metric {judged.metric} is {interval.point}")
        return judged

    def _confidence(self, planned: PlannedCell, built: Built, result: Untimed, block: Block) -> Confidence | None:
        """Judge the probabilities of a classifier's first output, where it has labels."""
        spec = self.registry.workloads[planned.workload.name].spec
        outputs = load_outputs(result.outputs)
        task = Workload.of(spec, planned.workload.params).task
        if task != "classification" or not built.evaluation.labelled or not outputs:
            return None
        first = next(iter(outputs.values()))
        found = None if isinstance(first, Ragged) else item_confidences(first, load_labels(built))
        if found is None:
            return None
        items, how = found
        self.store.write_scores(extra_scores(planned.cell.cell_id, CONFIDENCE), items)
        other = None if planned.is_anchor or block.anchor is None else extra_scores(block.anchor, CONFIDENCE)
        anchor = None if other is None else self.store.scores(other)
        return confidence(items, anchor, how=how, seed=self.request.seed)

    def _anchor_scores(self, block: Block) -> NDArray[Any] | None:
        return self.store.scores(block.anchor) if block.anchor is not None else None


def _retrains(method: MethodSpec[Any], step: Resolved) -> bool:
    """Tell whether a step may teach the model other answers: all do but those that only ask for a precision."""
    return method.family not in POST_TRAINING or "training" in needs_of(method, step.params)


def evaluation_batch(planned: PlannedCell, built: Built, state: TargetState | None) -> int:
    """Return how many items a call takes while outputs are collected, where that cannot change them."""
    batch = planned.cell.options.batch
    free = state is not None and state.capabilities is not None and state.capabilities.dynamic_batch
    if built.reference.alone:
        return 1 if free else batch
    return max(batch, EVALUATION_BATCH) if free and built.model.precision.scheme != "dynamic" else batch


def refuse_infinite(outputs: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> None:
    """Refuse outputs that are not numbers: an argmax over NaN would pass as an ordinary guess.

    Args:
        outputs: By name, items first.
        reference: What the model itself answers: NaN and infinity at the same places are its own.

    Raises:
        Unsupported: An output holds NaN or infinity; the message says in how many items.
    """
    import numpy as np  # as above

    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating):
            own = (reference or {}).get(name, ())
            items = zip(array, own, strict=True) if len(own) == len(array) else ((item, None) for item in array)
            bad = sum(not _numbers(*pair) for pair in items)
            if bad:
                raise Unsupported(f"output {name!r} is NaN or infinite for {bad} of {len(array)} items")


def _numbers(item: NDArray[Any], own: NDArray[Any] | None) -> bool:
    import numpy as np  # as above

    fine = np.isfinite(item)
    if fine.all() or own is None or np.shape(own) != np.shape(item):
        return bool(fine.all())
    return bool((fine | (item == own) | (np.isnan(item) & np.isnan(own))).all())


def load_labels(built: Built) -> NDArray[Any]:
    """Return the labels of the items that a cell is measured on."""
    import numpy as np  # as above

    labels: NDArray[Any] = np.load(built.evaluation.folder / "labels.npy")
    return labels
