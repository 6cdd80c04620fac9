"""Open a pack: its elements become cache entries, and what this host would lower otherwise is lowered here."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.build import cache as store
from harness.build import values
from harness.build.graph import Graph, Node
from harness.build.packfile import PackedCell, Reader
from harness.build.plane import THREADS, Built, evaluation_of, resolver_of, run_graph, states_of
from harness.build.reference import Reference
from harness.errors import BadModel, HarnessError, PluginError
from harness.types import Artifact, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from harness.build.cache import Cache, Entry
    from harness.build.events import BuildEvent
    from harness.build.gate import Slot
    from harness.plan import Plan, PlannedCell, TargetState
    from harness.plugins import Registry


def open_pack(
    path: Path,
    plan: Plan,
    *,
    registry: Registry,
    cache: Cache,
    on_event: Callable[[BuildEvent], None] = lambda _event: None,
    states: Mapping[str, TargetState] | None = None,
    workers: int | None = None,
    slot: Slot = contextlib.nullcontext,
    timeout_s: float | None = None,
) -> Mapping[str, Built | Failure]:
    """Return a plan's cells as the pack has them, without training and without torch.

    An artifact is lowered again from the packed model where this host's target differs in what lowering reads:
    its plugin, the versions of its packages, its capabilities.

    Args:
        path: The file that ``pack`` wrote.
        plan: What to measure here.
        registry: What plugins offer.
        cache: Gets the pack's content.
        on_event: Hears of every step that is lowered here.
        states: What probing said, by the target's text; ``None`` probes again.
        workers: Builder processes at a time; ``None`` for one per core.
        slot: Gives a context manager that is held while a step runs.
        timeout_s: A step that reports no progress for so long is killed; ``None`` for the request's.

    Returns:
        cell_id -> what can be measured, or why not; a cell that is not in the pack is unavailable.

    Raises:
        BadModel: The file is damaged, or holds what a pack may not hold.
    """
    cache.sweep()
    reader = Reader(path)
    try:
        content = _Content(reader, cache)
        graph = Graph(registry, states_of(plan, timeout_s) if states is None else states, plan.request.python)
        cells = {planned.cell_id: _Cell.of(planned, content, graph) for planned in plan.cells}
    finally:
        reader.close()
    _settle(cells, graph, cache, registry)
    run_graph(
        graph, cache, registry=registry, workers=workers, on_event=on_event, slot=slot,
        timeout_s=timeout_s or plan.request.timeout_s, threads=THREADS,
        memory_limit_bytes=plan.request.memory_limit_bytes,
    )  # fmt: skip
    return {cell_id: cell if isinstance(cell, Failure) else cell.result() for cell_id, cell in cells.items()}


class _Content:
    """The elements of a pack as cache entries, each verified and extracted once."""

    def __init__(self, reader: Reader, cache: Cache) -> None:
        self.reader = reader
        self.cache = cache
        self._entries: dict[str, Entry] = {}

    def entry(self, name: str, kind: str, value: Any) -> Entry:
        """Return an element's entry.

        Raises:
            BadModel: A member's hash differs.
        """
        if name not in self._entries:
            self._entries[name] = self._install(name, kind, value)
        return self._entries[name]

    def reference(self, packed: PackedCell) -> Reference:
        """Return a cell's reference outputs, or why the pack has none."""
        if not packed.reference:
            return Reference(reason=packed.unreferenced)
        value = self.reader.info.references[packed.reference]
        return values.reference(self.entry(packed.reference, "reference", value))

    def _install(self, name: str, kind: str, value: Any) -> Entry:
        key = codec.sha256(["pack", kind, self.reader.sha256(name), value])
        found = self.cache.get(key)
        if found is not None:
            self.reader.verify(name)
            return found
        with self.cache.staging() as out:
            self.reader.extract(name, out)
            data, digest = self._checked(name, kind, value, out)
            inputs = {"pack": self.reader.path.name, "element": name}
            result = store.Result(store.SCHEMA, key, kind, data, digest, 0.0, inputs)
            return self.cache.publish(out, result)

    def _checked(self, name: str, kind: str, value: Any, out: Path) -> tuple[Any, str]:
        if kind == "data":
            return codec.to_data(value), value.sha256(*value.splits)
        for path in values.pointed(value):
            if path.is_absolute() or ".." in path.parts or not (out / path).exists():
                raise BadModel(f"{self.reader.path} is refused: {name} points to {path}, which it does not hold")
        return codec.to_data(value), codec.content_sha256(out if kind == "reference" else out / value.path)


@dataclasses.dataclass
class _Cell:
    """A cell of the pack on its way: its data and model are given, its artifact may be lowered anew."""

    packed: PackedCell
    data: Node
    model: Node
    lower: Node
    artifact: Artifact
    reference: Reference

    @classmethod
    def of(cls, planned: PlannedCell, content: _Content, graph: Graph) -> _Cell | Failure:
        if planned.impossible is not None:
            return planned.impossible
        info = content.reader.info
        packed = info.cells.get(planned.cell_id)
        if packed is None:
            labels = " ".join(planned.labels.values())
            return Failure("unavailable", "plan", content.reader.path.name, f"the pack does not hold {labels}")
        try:
            entries = (
                content.entry(packed.data, "data", info.data[packed.data]),
                content.entry(packed.model, "model", info.models[packed.model]),
                content.entry(packed.artifact, "artifact", info.artifacts[packed.artifact]),
            )
            reference = content.reference(packed)
        except KeyError as error:
            raise BadModel(f"{content.reader.path} is refused: it lists {error} and does not hold it") from error
        data, model = graph.given(planned, entries[0], info.data[packed.data], entries[1])
        try:
            lower = graph.lower(planned, model)
        except PluginError as error:
            return Failure("failed", "plan", planned.target.plugin, error.message)
        return cls(packed, data, model, lower, values.load(entries[2], Artifact), reference)

    def result(self) -> Built | Failure:
        """Return the cell as it can be measured."""
        if self.lower.failure is not None:
            return self.lower.failure
        artifact = self.lower.value if isinstance(self.lower.value, Artifact) else self.artifact
        if self.data.entry is None:
            raise TypeError("the data of a packed cell are given")
        seconds = {**self.packed.seconds, **({"lower": self.lower.seconds} if self.lower.executed else {})}
        return Built(
            artifact, self.model.model, evaluation_of(self.data.entry.folder, self.data.splits),
            seconds, not self.lower.executed, {"lower": (self.lower.key,)}, self.reference,
        )  # fmt: skip


def _settle(cells: Mapping[str, _Cell | Failure], graph: Graph, cache: Cache, registry: Registry) -> None:
    """Take the packed artifact where this host would lower the same; the rest stays for the builders."""
    resolver = resolver_of(graph, cache, registry, THREADS)
    for cell in cells.values():
        if isinstance(cell, Failure) or cell.lower.state != "waiting":
            continue
        with contextlib.suppress(HarnessError):  # the scheduler meets it again, and reports it
            resolver.resolve(cell.lower)
            if cell.lower.key == codec.sha256(cell.packed.lowered):
                cell.lower.value, cell.lower.state, cell.lower.given = cell.artifact, "done", True
