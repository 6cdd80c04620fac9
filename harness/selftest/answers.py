"""Lines about right answers: ten wrong ones are planted, and each must be caught on every target that can carry it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.bench.oracle import judge, load_outputs, refused
from harness.bench.records import Context
from harness.bench.run import prepare, sources_of
from harness.bench.shared import member_of
from harness.build import Built, Cache, build_plan
from harness.measure import Member, fingerprint, run_untimed
from harness.measure.cpus import effective_cores
from harness.plan import PlannedCell, Request, TargetState
from harness.selftest.lab import TIMEOUT_S, Lab, line
from harness.selftest.values import Line
from harness.types import Failure, OracleCheck

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[Any]]

WORKLOAD = "planted-answers"
RIGHT, OTHER = "none", "other"  # the right network, and one whose artifact is put in its place
CONVERSIONS: Mapping[str, str] = {  # what a wrong conversion does: the workload has a network for each
    "swapped-inputs": "swapped inputs",
    "transposed-weight": "transposed weight",
    "layout": "NCHW as NHWC",
    "channel-scale": "one channel's scale",
    "epsilon": "another epsilon",
    "softmax-axis": "softmax axis",
}
BATCH = 16  # items per call: the last of the 61 items do not fill one


@dataclass(frozen=True)
class Planted:
    """The right network and the wrong ones, as they were built for one target.

    Attributes:
        cells: Fault -> planned cell and what was built of it.
        folder: Gets outputs and changed items.
    """

    target: str
    state: TargetState
    cells: Mapping[str, tuple[PlannedCell, Built]]
    request: Request
    folder: Path

    @property
    def built(self) -> Built:
        """The right network."""
        return self.cells[RIGHT][1]

    def member(self, fault: str = RIGHT) -> Member:
        """Return a network as a worker takes it."""
        return member_of(*self.cells[fault], self.request)

    def outputs(self, member: Member, name: str) -> Outputs | str:
        """Run the items; return the outputs, or why there are none."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        found = run_untimed(
            member, purposes={"accuracy"}, batch=BATCH, items=None, outputs_to=folder, timeout_s=TIMEOUT_S
        )
        return found.reason if isinstance(found, Failure) else load_outputs(found.outputs)

    def check(self, member: Member, name: str) -> OracleCheck | str:
        """Judge a network by the right one's reference outputs; return why where it does not run."""
        found = self.outputs(member, name)
        return found if isinstance(found, str) else self.judge(found)

    def judge(self, outputs: Outputs) -> OracleCheck:
        """Judge outputs by the right network's reference outputs, as those of an anchor are judged."""
        return judge(outputs, self.built, (), binding=True, choice={})

    def items(self, name: str) -> Path:
        """Return the folder of a copy of the evaluation items in which each has moved on by one."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.built.evaluation.folder, folder)
        for path in folder.glob("*.npy"):
            np.save(path, np.roll(np.load(path), 1, axis=0))
        return folder


def planted(lab: Lab, targets: tuple[str, ...] = ("all",)) -> Iterator[Line]:
    """The right network passes, and ten wrong answers are caught, on every target that is here."""
    for found in _built(lab, targets):
        if isinstance(found, Line):
            yield found
            continue
        yield _right(found)
        for fault, what in CONVERSIONS.items():
            yield _line(found, what, found.check(found.member(fault), fault))
        moved = replace(found.member(), evaluation=found.items("moved"))
        yield _line(found, "shifted items", found.check(moved, "items"))
        swapped = replace(found.member(), artifact=found.cells[OTHER][1].artifact)
        yield _line(found, "another artifact", found.check(swapped, "artifact"))
        yield _truncated(found)
        yield _stale(found, lab)


def _built(lab: Lab, targets: tuple[str, ...]) -> Iterator[Planted | Line]:
    """Build every network for every target; a target that is not here, or cannot take them, is a line."""
    texts = (WORKLOAD, *(f"{WORKLOAD}:fault={fault}" for fault in (*CONVERSIONS, OTHER)))
    request = Request(workloads=texts, methods=("baseline",), targets=targets)
    plan, states = prepare(request, lab.registry)
    results = build_plan(plan, Cache(), registry=lab.registry, workers=effective_cores(), states=states)
    for target, state in states.items():
        offer = lab.registry.targets.get(target)
        if offer is None or not offer.spec.ranked:
            continue
        rows = [item for item in plan.cells if item.labels["target"] == target]
        ends = {str(item.workload.params["fault"]): (item, results[item.cell.cell_id]) for item in rows}
        good = {fault: (item, end) for fault, (item, end) in ends.items() if isinstance(end, Built)}
        if len(good) < len(ends):
            lost = next(end for _item, end in ends.values() if isinstance(end, Failure))
            yield line(f"planted answers on {target}", ("not-evaluable", lost.reason))
        else:
            yield Planted(target, state, good, request, lab.folder / "answers" / target)


def _right(found: Planted) -> Line:
    check = found.check(found.member(), RIGHT)
    title = f"right answers on {found.target}"
    if isinstance(check, str) or check.sqnr_db is None:
        return line(title, ("fail", check if isinstance(check, str) else f"there is no reference: {check.reason}"))
    said = refused(check)
    seen = said or f"{check.sqnr_db:.0f} dB against {check.oracle}, at least {check.due_db:g} dB is due"
    return line(title, ("fail" if said else "pass", seen), {"sqnr_db": check.sqnr_db})


def _line(found: Planted, what: str, check: OracleCheck | str) -> Line:
    """Return the line of a planted wrong answer: it passes where the answer was refused."""
    title = f"{what} on {found.target}"
    if isinstance(check, str):
        return line(title, ("fail", f"it was to run, and did not: {check}"))
    said = refused(check)
    figures = {} if check.sqnr_db is None else {"sqnr_db": check.sqnr_db}
    return line(title, ("pass", said) if said else ("fail", "the wrong answers passed"), figures)


def _truncated(found: Planted) -> Line:
    """Leave the last, short batch of a right network's outputs empty, as a buffer of whole batches would."""
    what = "cut last batch"
    outputs = found.outputs(found.member(), "truncated")
    if isinstance(outputs, str):
        return _line(found, what, outputs)
    whole = found.built.evaluation.items // BATCH * BATCH
    cut = {name: np.concatenate([array[:whole], np.zeros_like(array[whole:])]) for name, array in outputs.items()}
    return _line(found, what, found.judge(cut))


def _stale(found: Planted, lab: Lab) -> Line:
    """Change the data under the same name: older outputs are refused, and no stored result of them is reused."""
    what = "older data"
    older = replace(found.member(), evaluation=found.items("older"))
    checked = found.check(older, "stale")
    context = Context(fingerprint().host_id, "quick", {found.target: found.state}, sources_of(lab.registry))
    planned, built = found.cells[RIGHT]
    changed = replace(built, evaluation=replace(built.evaluation, sha256="0" * 64))
    if context.inputs_sha256(planned, built) == context.inputs_sha256(planned, changed):
        return line(f"{what} on {found.target}", ("fail", "a result of other data would be reused"))
    return _line(found, what, checked)
