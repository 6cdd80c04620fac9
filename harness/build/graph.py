"""The unique steps behind a plan's cells: cells that share a beginning share its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.build import job, values
from harness.build.data import DataInfo
from harness.build.keys import capability_inputs, options_read
from harness.build.reference import Reference
from harness.build.tasks import StepStage, Use
from harness.codec import sha256, to_data
from harness.errors import PluginError
from harness.grammar import format_pipeline, format_step
from harness.plan.checks import built_in_first
from harness.types import Artifact, Capabilities, Failure, Model, Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.build.cache import Entry
    from harness.plan import PlannedCell, Resolved, TargetState
    from harness.plugins import Registry

# Rough seconds, to order steps before their times are known.
COSTS: Mapping[str, float] = {"data": 3.0, "fit": 60.0, "compress": 15.0, "export": 6.0, "lower": 3.0, "reference": 3.0}
State = Literal["waiting", "ready", "running", "done", "failed"]


@dataclass(eq=False)
class Node:
    """One step.

    Attributes:
        parent: The step whose model this one takes.
        data, reference: The workload's data and its trained model.
        hardware: Capability fields that it may see, as JSON.
        python: The interpreter it runs in; ``None`` for this one.
        value: What it gave; an exported model with its parent's precision and lineage.
        sha256: Of the file that the value points to.
        executed: Whether it was run, not found in the cache.
        rank: Seconds of the longest chain that begins here.
        given: Whether its entry came from elsewhere, such as a pack: no step can make it again.
        again: How often it was made again because its files in the cache were damaged.
        tries: How often it was tried again because another plugin may have made it fail.
    """

    stage: StepStage
    label: str
    use: Use
    workload: Use
    options: Options
    parent: Node | None = None
    data: Node | None = None
    reference: Node | None = None
    hardware: Mapping[str, Any] | None = None
    python: str | None = None
    state: State = "waiting"
    key: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    entry: Entry | None = None
    value: Model | Artifact | DataInfo | Reference | None = None
    sha256: str = ""
    failure: Failure | None = None
    seconds: float = 0.0
    executed: bool = False
    children: list[Node] = field(default_factory=list)
    rank: float = 0.0
    recipe: str = ""
    given: bool = False
    again: int = 0
    tries: int = 0

    @property
    def likes(self) -> str:
        """Return whose imports serve this step: an oracle runs in the framework that fitted the model."""
        return self.workload.name if self.stage == "reference" else self.use.name

    @property
    def needs(self) -> tuple[Node, ...]:
        """Return the steps that come before."""
        return tuple(node for node in (self.data, self.reference, self.parent) if node is not None)

    @property
    def splits(self) -> DataInfo:
        """Return the data that this step gave."""
        if not isinstance(self.value, DataInfo):
            raise TypeError(f"{self.label} gave no data")
        return self.value

    @property
    def model(self) -> Model:
        """Return the model that this step gave."""
        if not isinstance(self.value, Model):
            raise TypeError(f"{self.label} gave no model")
        return self.value

    def chain(self) -> Iterator[Node]:
        """Yield the steps that led here, the first one first."""
        if self.parent is not None:
            yield from self.parent.chain()
        elif self.data is not None:
            yield self.data
        yield self


def _use(resolved: Resolved) -> Use:
    return Use(resolved.plugin, resolved.name, dict(resolved.params))


class Graph:
    """The steps of all cells.

    Args:
        registry: For what methods and targets declare to read.
        states: What probing said, by the target's text.
        python: Target name -> interpreter to lower in.
    """

    def __init__(
        self, registry: Registry, states: Mapping[str, TargetState], python: Mapping[str, str] | None = None
    ) -> None:
        self.registry = registry
        self.states = states
        self.python = python or {}
        self.nodes: dict[str, Node] = {}

    def add(self, planned: PlannedCell) -> Node:
        """Add a cell's steps; return its last one.

        Raises:
            PluginError: A spec declares to read what does not exist.
        """
        return self.lower(planned, self.model(planned))

    def model(self, planned: PlannedCell) -> Node:
        """Add the steps up to the model that a cell's target lowers; return the one that gives it."""
        fit = self.fit(planned)
        model = fit
        for index in range(len(planned.pipeline)):
            model = self._compress(planned, index, model, fit)
        for exporter in planned.exporters:
            model = self._export(planned, exporter, model)
        return model

    def fit(self, planned: PlannedCell) -> Node:
        """Add the steps up to the fitted model of a cell's workload; return the one that gives it."""
        workload = _use(planned.workload)
        name = format_step(planned.workload.step)
        data = self._node(Node("data", f"{name}: data", workload, workload, Options()))
        options = Options(seed=planned.cell.options.seed)
        return self._node(Node("fit", f"{name}: train", workload, workload, options, data=data))

    def reference(self, planned: PlannedCell) -> Node | None:
        """Add the step that asks an oracle for the test items' answers; ``None`` where none reads the fitted model."""
        spec = self.registry.find("workload", planned.workload.name).spec
        fitted = job.Workload.of(spec, planned.workload.params).produces
        found = next(
            (name for name, offer in built_in_first(self.registry.oracles) if offer.spec.consumes == fitted), None
        )
        if found is None:
            return None
        fit = self.fit(planned)
        label = f"{format_step(planned.workload.step)}: reference outputs"
        use = Use(self.registry.oracles[found].plugin, found)
        return self._node(Node("reference", label, use, fit.workload, fit.options, fit, fit.data))

    def _capabilities(self, planned: PlannedCell) -> Capabilities | None:
        state = self.states.get(planned.labels["target"])
        return state.capabilities if state else None

    def _compress(self, planned: PlannedCell, index: int, parent: Node, fit: Node) -> Node:
        method = planned.pipeline[index]
        spec = self.registry.find("method", method.name).spec
        hardware = None
        if spec.reads:
            capabilities = self._capabilities(planned)
            if capabilities is None:
                target = planned.labels["target"]
                raise PluginError(f"method {method.name!r} reads the hardware, and {target} was not probed")
            hardware = to_data(job.read_fields(capabilities, spec.reads, f"method {method.name!r}"))
        steps = format_pipeline([item.step for item in planned.pipeline[: index + 1]])
        label = f"{format_step(planned.workload.step)}: {steps}"
        node = Node("compress", label, _use(method), parent.workload, fit.options, parent, fit.data, fit, hardware)
        return self._node(node)

    def _export(self, planned: PlannedCell, name: str, parent: Node) -> Node:
        offer = self.registry.find("exporter", name)
        options = options_read(planned.cell.options, offer.spec.reads, f"exporter {name!r}")
        label = f"{planned.labels['workload']}: {planned.labels['method']} to {offer.spec.produces}"
        return self._node(Node("export", label, Use(offer.plugin, name), parent.workload, options, parent, parent.data))

    def lower(self, planned: PlannedCell, parent: Node) -> Node:
        """Add the last step of a cell, after any model.

        Raises:
            PluginError: The target declares to read what does not exist.
        """
        target = planned.target
        spec = self.registry.find("target", target.name).spec
        options = options_read(planned.cell.options, spec.lower_reads, f"target {target.name!r}")
        label = f"{planned.labels['workload']}: {planned.labels['method']} for {planned.labels['target']}"
        capabilities = self._capabilities(planned)
        node = Node("lower", label, _use(target), parent.workload, options, parent, parent.data)
        node.hardware = capability_inputs(capabilities) if capabilities else None
        node.python = self.python.get(target.name)
        return self._node(node)

    def given(self, planned: PlannedCell, data: Entry, info: DataInfo, model: Entry) -> tuple[Node, Node]:
        """Return nodes of data and a model that are there, such as a pack's; they are not run."""
        workload = _use(planned.workload)
        name = planned.labels["workload"]
        before = Node(
            "data", f"{name}: data", workload, workload, Options(), state="done", key=data.result.key, given=True
        )
        before.entry, before.value, before.recipe = data, info, data.result.key
        options = Options(seed=planned.cell.options.seed)
        node = Node("export", f"{name}: model", workload, workload, options, data=before, state="done", given=True)
        node.entry, node.key, node.sha256, node.recipe = model, model.result.key, model.result.sha256, model.result.key
        node.value = values.load(model, Model)
        return before, node

    def _node(self, node: Node) -> Node:
        """Return the node of this recipe, which another cell may have added."""
        before = [item.recipe for item in node.needs]
        recipe = sha256([node.stage, node.use, node.workload, node.options, node.hardware, node.python, before])
        if recipe not in self.nodes:
            node.recipe = recipe
            self.nodes[recipe] = node
            if node.stage != "reference":  # nothing waits for it, and nothing is trained for its sake alone
                for parent in node.needs:
                    parent.children.append(node)
        return self.nodes[recipe]

    def rank(self) -> None:
        """Find the longest chain behind each step, so that it can begin early."""
        for node in reversed(list(self.nodes.values())):  # children were added after their parents
            node.rank = COSTS[node.stage] + max((child.rank for child in node.children), default=0.0)
