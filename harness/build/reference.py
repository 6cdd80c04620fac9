"""What a model answers in the framework that defines it: made once from the fitted model and the evaluation items."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.explain import first_line, line
from harness.feeds import as_array, fixed_batch, items_of_call

if TYPE_CHECKING:
    from harness.specs import Array, Arrays, Oracle
    from harness.types import Model

REFERENCES = 3  # version of how they are made: older ones in the cache are made again
BUDGET_S = 10.0  # an oracle that would take longer over all items makes room for the next one
CALL_ELEMENTS = 1 << 20  # of inputs in one call: evaluators that are meant to be read unfold convolutions in memory
MEMORY_SHARE = 3  # an oracle may take the third part of what is free: some keep every tensor, and unfold convolutions
ALIKE_DB = 60.0  # answers to the same items that differ by more are not those of one function


@dataclass(frozen=True)
class Reference:
    """Reference outputs of the evaluation items.

    Attributes:
        oracle: Which program gave them.
        items: How many.
        files: File of each output [items, …]; relative to their folder where they are stored.
        batch: Items per call that they were made with.
        alone: An item's answer depends on the others in its call, so that one is due in each.
        seconds: What it took.
        reason: Why there are none; empty where there are.
        passed: Which more trusted oracles were passed over, and why; empty where none was, or where it was too slow.
    """

    oracle: str = ""
    items: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)
    batch: int = 1
    alone: bool = False
    seconds: float = 0.0
    reason: str = ""
    passed: str = ""

    def moved(self, move: Callable[[Path], Path]) -> Reference:
        """Return it with other paths."""
        return replace(self, files={name: move(path) for name, path in self.files.items()})


class _TooSlow(HarnessError):
    """The items would take longer than the budget."""


class _Depends(HarnessError):
    """An item's answer depends on the others in its call."""


def write_reference(
    oracles: Iterable[Oracle],
    model: Model,
    evaluation: Path,
    items: int,
    folder: Path,
    progress: Callable[[float, str], None],
    *,
    batch: int,
) -> Reference:
    """Run the items through the first oracle that answers all of them in reasonable time.

    Args:
        oracles: The most trusted one first; where all are too slow, the last one takes its time.
        model: What they run.
        evaluation: Folder of the items, one file for each input.
        items: How many.
        folder: Gets a file for each output.
        progress: Hears how far it is.
        batch: Items per call, where the model takes any number; one where an answer depends on the others in its call.

    Raises:
        HarnessError: No oracle answered; the message tells what each of them met.
    """
    run = _Run(model, evaluation, items, folder, progress, batch)
    passed: list[str] = []
    unlike: list[str] = []
    slow = None
    try:
        for oracle in oracles:
            try:
                return replace(run(oracle, BUDGET_S), passed="; ".join(unlike))
            except _TooSlow as error:
                slow = oracle
                passed.append(f"{oracle.label}: {error.message}")
            except Exception as error:  # noqa: BLE001  a framework may raise anything; the next one is asked
                unlike.append(f"{oracle.label}: {_told(error)}")
                passed.append(unlike[-1])
        if slow is not None:
            return run(slow, math.inf)
    except Exception as error:  # noqa: BLE001  as above, while it was opened
        passed.append(_told(error))
    raise HarnessError("; ".join(passed) or "there is no oracle for this model")


@dataclass(frozen=True)
class _Run:
    model: Model
    evaluation: Path
    items: int
    folder: Path
    progress: Callable[[float, str], None]
    batch: int

    def __call__(self, oracle: Oracle, budget_s: float) -> Reference:
        batch = min(self.batch, max(1, CALL_ELEMENTS // self._elements()))
        try:
            return self._answers(oracle, budget_s, batch)
        except _Depends:
            return replace(self._answers(oracle, budget_s, 1), alone=True)

    def _answers(self, oracle: Oracle, budget_s: float, batch: int) -> Reference:
        from harness.measure.isolate import available_bytes, more_memory
        from harness.measure.outputs import write_outputs  # numpy, which only a builder that runs a model imports

        for file in self.folder.glob("*"):  # of one that was passed over
            file.unlink()
        call, started = _Timed(oracle, self.model, self.items, budget_s, self.progress), time.monotonic()
        with more_memory(available_bytes() // MEMORY_SHARE):
            files, batch = write_outputs(
                call, self.model.inputs, self.model.axes, self.evaluation, self.folder, batch=batch, items=self.items
            )
        return Reference(oracle.label, self.items, files, batch, seconds=time.monotonic() - started)

    def _elements(self) -> int:
        """Return how many numbers the inputs of one item hold, in the data: the model may leave their size free."""
        from harness.measure.inputs import open_items  # as above

        arrays = open_items(self.evaluation, self.model.inputs)
        roles = {name: spec.role for name, spec in self.model.inputs.items()}
        return sum(math.prod(array.shape[1:]) for name, array in arrays.items() if roles[name] == "item") or 1


def _told(error: Exception) -> str:
    if isinstance(error, HarnessError):
        return line(error.message)
    return f"{type(error).__name__}: {first_line(str(error))}"


class _Timed:
    """Calls of an oracle; the first one tells how long all of them will take, and whether the answers are any measure.

    Raises:
        HarnessError: The same items are answered differently when they are asked for again.
        _Depends: Likewise when one is alone.
    """

    def __init__(
        self,
        oracle: Oracle,
        model: Model,
        items: int,
        budget_s: float,
        progress: Callable[[float, str], None],
    ) -> None:
        self._oracle, self._specs, self._axes, self._items = oracle, model.inputs, model.axes, items
        self._budget_s, self._progress = budget_s, progress
        self._calls = 0

    def __call__(self, inputs: Arrays) -> Arrays:
        started = time.monotonic()
        found = self._oracle.run(inputs)
        calls = -(-self._items // max(1, items_of_call(self._specs, inputs)))
        expected = (time.monotonic() - started) * calls
        if not self._calls:
            if expected > self._budget_s:
                raise _TooSlow(f"{expected:.0f} s for {self._items} items")
            self._trust(inputs, found)
        self._calls += 1
        self._progress(min(1.0, self._calls / calls), self._oracle.label)
        return found

    def _trust(self, inputs: Arrays, found: Arrays) -> None:
        if not _alike(self._oracle.run(inputs), found):
            raise HarnessError("the model answers the same items differently each time: nothing can be compared")
        if fixed_batch(self._specs) is not None or items_of_call(self._specs, inputs) == 1:
            return
        first = {name: _first(array, self._axis(name)) for name, array in inputs.items()}
        try:
            alone = self._oracle.run(first)
        except Exception:  # noqa: BLE001  a model may need several items; then nothing is learnt
            return
        if not _alike(alone, {name: _first(array, self._axes.get(name, 0)) for name, array in found.items()}):
            raise _Depends("an item's answer depends on the others in its batch")

    def _axis(self, name: str) -> int | None:
        return self._specs[name].axis if name in self._specs else None


def _first(array: Array, axis: int | None) -> Array:
    """Return the first item of a call's array; all of one that holds no items."""
    import numpy as np  # as above

    array = np.asarray(array)
    return array if axis is None or array.ndim <= axis else np.take(array, [0], axis=axis)


def _alike(ours: Arrays, theirs: Arrays) -> bool:
    import numpy as np  # as above

    from harness.stats.closeness import closeness

    pairs = [(np.atleast_1d(as_array(ours[name])), np.atleast_1d(as_array(array))) for name, array in theirs.items()]
    return all(closeness(one, other).sqnr_db >= ALIKE_DB for one, other in pairs)
