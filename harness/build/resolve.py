"""From a step whose parents are done to its key, its task, and its value once the entry is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness import codec, params
from harness.build import keys, values
from harness.build.data import LABELS, SPLITS, DataInfo
from harness.build.reference import REFERENCES
from harness.build.tasks import KIND, Task, Use
from harness.errors import HarnessError, PluginError
from harness.explain import first_line
from harness.faults import called
from harness.plan.splits import lacking
from harness.types import Artifact, Model, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.build.cache import Cache, Entry
    from harness.build.graph import Node
    from harness.plugins import Registry
    from harness.specs import Offer

_BUILD_SPLITS = tuple(name for name in SPLITS if name != "test")


@dataclass
class Resolver:
    """What turns nodes into keys and tasks.

    Attributes:
        sources: (interpreter, plugin) -> versions in that interpreter, for the targets that lower elsewhere.
        threads: CPU threads of each builder: part of the keys, as they change what training gives.
        memory_limit_bytes: What a step may take, as ``Task`` says.
    """

    cache: Cache
    registry: Registry
    threads: int
    sources: Mapping[tuple[str, str], keys.Source | HarnessError] = field(default_factory=dict)
    memory_limit_bytes: int | None = None

    def offer(self, node: Node) -> Offer[Any]:
        """Return the offer that does a step's work."""
        offer: Offer[Any] = self.registry.find(KIND[node.stage], node.use.name)
        return offer

    def _source(self, node: Node, offer: Offer[Any]) -> keys.Source:
        if node.python is not None:
            source = self.sources[node.python, offer.plugin]
            if isinstance(source, HarnessError):
                raise source
            return source
        packages = offer.spec.packages if node.stage == "lower" else keys.libraries(offer)
        return keys.source_of(offer, self.registry, tuple(packages))

    def resolve(self, node: Node) -> None:
        """Give a node its key.

        Raises:
            HarnessError: The interpreter that it needs cannot be used.
        """
        offer = self.offer(node)
        inputs = keys.base(node.stage, self._source(node, offer), node.use.name, node.use.params)
        inputs |= getattr(self, f"_{node.stage}_inputs")(node)
        node.inputs, node.key = inputs, keys.key_of(inputs)

    def lacking(self, node: Node) -> str | None:
        """Say which items a method needs that the data do not hold, or return None."""
        splits = _need(node.data).splits.splits
        return lacking(self.offer(node).spec, node.use.params, node.workload.name, splits)

    def _data_inputs(self, node: Node) -> dict[str, Any]:
        spec = self.offer(node).spec
        if spec.fingerprint is None:
            return {}
        try:
            built = params.build(spec.params, node.use.params, owner=f"workload {spec.name!r}")
            with called():
                return {"fingerprint": spec.fingerprint(built)}
        except HarnessError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(str(error))}"
            raise PluginError(f"fingerprint of workload {spec.name!r} raised {what}") from error

    def _shared(self, node: Node, *splits: str) -> dict[str, Any]:
        data = _need(node.data).splits.sha256(*splits)
        return {"data": data, "seed": node.options.seed, "threads": self.threads}

    def _fit_inputs(self, node: Node) -> dict[str, Any]:
        return self._data_inputs(node) | self._shared(node, *_BUILD_SPLITS)

    def _compress_inputs(self, node: Node) -> dict[str, Any]:
        parent, reference = _need(node.parent), _need(node.reference)
        return self._shared(node, *_BUILD_SPLITS) | {
            "workload": self._workload(node),
            "parent": [parent.key, parent.sha256],
            "reference": reference.sha256,
            "hardware": node.hardware,
        }

    def _workload(self, node: Node) -> Any:
        """Return what a method can see of the workload: its loss, its model and its score are code of the plugin."""
        offer = self.registry.find("workload", node.workload.name)
        source = keys.source_of(offer, self.registry, ())
        return [node.workload.name, dict(node.workload.params), source.version, source.sha256]

    def _export_inputs(self, node: Node) -> dict[str, Any]:
        parent = _need(node.parent)
        return self._shared(node, *_BUILD_SPLITS) | {
            "model": keys.file_inputs(parent.model, parent.sha256),
            "options": codec.to_data(node.options),
        }

    def _lower_inputs(self, node: Node) -> dict[str, Any]:
        parent = _need(node.parent)
        return self._shared(node, "calibration") | {
            "model": keys.file_inputs(parent.model, parent.sha256),
            "precision": keys.precision_inputs(parent.model.precision),
            "flags": list(parent.model.flags),
            "options": codec.to_data(node.options),
            "capabilities": node.hardware,
        }

    def _reference_inputs(self, node: Node) -> dict[str, Any]:
        parent, test = _need(node.parent), _need(node.data).splits.splits["test"]
        return {
            "made": REFERENCES,
            "items": {name: digest for name, digest in test.files.items() if name != LABELS},
            "model": keys.file_inputs(parent.model, parent.sha256),
            "threads": self.threads,
        }

    def task(self, node: Node) -> Task:
        """Return the request to a builder."""
        return Task(
            stage=node.stage, key=node.key, label=node.label, use=node.use, workload=node.workload,
            seed=node.options.seed, threads=self.threads, cache=str(self.cache.root),
            data_key=node.data.key if node.data else None, model=self._given(node),
            reference=node.reference.model if node.reference else None,
            options=node.options, hardware=node.hardware, inputs=node.inputs,
            memory_limit_bytes=self.memory_limit_bytes, reader=self._reader(node),
        )  # fmt: skip

    def _reader(self, node: Node) -> Use | None:
        """Return who can look at the weights of the model that a method is to give."""
        if node.stage != "compress":
            return None
        wanted = self.offer(node).spec.produces or _need(node.parent).model.format
        offer = self.registry.inspectors.get(wanted)
        return None if offer is None or offer.spec.nan_weights is None else Use(offer.plugin, wanted)

    def _given(self, node: Node) -> Model | None:
        """Return the model as the step may see it: what its key does not hold is taken off."""
        if node.parent is None:
            return None
        model = node.parent.model
        if node.stage == "export":
            return replace(model, precision=Precision(), lineage=(), flags=())
        return replace(model, lineage=()) if node.stage == "lower" else model

    def accept(self, node: Node, entry: Entry) -> None:
        """Give a node the value of its entry.

        Raises:
            RecordError: The entry holds something else.
        """
        node.entry, node.seconds, node.sha256 = entry, entry.result.seconds, entry.result.sha256
        if node.stage == "data":
            node.value = codec.from_data(DataInfo, entry.result.value, where=str(entry.folder))
        elif node.stage == "lower":
            node.value = values.load(entry, Artifact)
        elif node.stage == "reference":
            node.value = values.reference(entry)
        else:
            node.value = self._carried(node, values.load(entry, Model))

    def _carried(self, node: Node, model: Model) -> Model:
        """Carry over what the step did not see: an export is shared by models that differ in these."""
        if node.stage == "fit":
            flags = self.offer(node).spec.flags
            return replace(model, flags=_union(flags, model.flags))
        parent = _need(node.parent).model
        if node.stage == "export":
            lineage = (*parent.lineage, *model.lineage)
            return replace(model, precision=parent.precision, lineage=lineage, flags=_union(parent.flags, model.flags))
        return replace(model, lineage=(*parent.lineage, *model.lineage[-1:]), flags=_union(parent.flags, model.flags))


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _need(node: Node | None) -> Node:
    if node is None:
        raise TypeError("a step has no parent")
    return node
