"""Run one step inside a builder: give the plugin its job, check what comes back, publish it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import claims, codec, params
from harness.build import cache, opened, parts, values
from harness.build.data import DataInfo, GuardedData, NoData, write_data
from harness.build.given import Given
from harness.build.job import Workload, hardware
from harness.build.reference import Reference, write_reference
from harness.build.tasks import KIND, Task, Use, failure_stage
from harness.errors import PluginError
from harness.plan.values import ANCHOR
from harness.plugins import Registry, load_registry
from harness.specs import Job, Offer
from harness.types import Artifact, Asked, Model, StepRecord

EFFECT = "effect.json"
LONGEST = 2000  # characters of a text that a step tells of its result
Report = Callable[[float, str], None]


class Plugins:
    """The registries of the plugins that this builder was asked for, each imported once."""

    def __init__(self) -> None:
        self._registries: dict[str, Registry] = {}

    def registry(self, plugin: str) -> Registry:
        """Return the registry that holds this plugin alone."""
        if plugin not in self._registries:
            self._registries[plugin] = load_registry(only={plugin})
        return self._registries[plugin]

    def offer(self, kind: str, use: Use) -> Offer[Any]:
        """Return an offer.

        Raises:
            PluginError: The plugin is broken or offers no such thing.
        """
        registry = self.registry(use.plugin)
        offers = getattr(registry, f"{kind}s")
        if use.name not in offers:
            why = "; ".join(problem.message for problem in registry.problems) or "it does not offer it"
            raise PluginError(f"{kind} {use.name!r} cannot be had from plugin {use.plugin!r}: {why}")
        offer: Offer[Any] = offers[use.name]
        return offer


def run_task(task: Task, plugins: Plugins, report: Report) -> float:
    """Run a step and publish its entry; an entry that another process finished meanwhile is used.

    Returns:
        Seconds that the step took.

    Raises:
        HarnessError: The plugin refused, or what it gave is not what it declared.
    """
    store = cache.Cache(Path(task.cache))
    found = store.get(task.key)
    if found is not None:
        return found.result.seconds
    _seed(task.seed)
    started = time.monotonic()
    with store.staging() as out, store.staging() as copies:
        step = _Step(task, store, plugins, report, Given(store, copies, f"{KIND[task.stage]} {task.use.name!r}"))
        with limited(task.memory_limit_bytes):
            kind, value = step.run(out)
        seconds = time.monotonic() - started
        step.publish(out, kind, value, seconds)
    return seconds


def limited(limit_bytes: int | None) -> contextlib.AbstractContextManager[None]:
    """Let a step take so much memory beside what this process holds."""
    if limit_bytes is None:
        return contextlib.nullcontext()
    from harness.measure import isolate  # with numpy, which only a step that runs a model needs

    return isolate.more_memory(limit_bytes)


def _seed(seed: int) -> None:
    """Begin every step from the same state, whatever ran in this builder before; frameworks are the plugin's part."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)  # plugins' libraries may use the global generator


@dataclasses.dataclass(frozen=True)
class _Step:
    task: Task
    store: cache.Cache
    plugins: Plugins
    report: Report
    given: Given

    @property
    def owner(self) -> str:
        return f"{KIND[self.task.stage]} {self.task.use.name!r}"

    def run(self, out: Path) -> tuple[str, DataInfo | Model | Artifact | Reference]:
        task = self.task
        offer = self.plugins.offer(KIND[task.stage], task.use)
        workload = Workload.of(self.plugins.offer("workload", task.workload).spec, task.workload.params)
        if task.stage == "data":
            return "data", self._data(out, workload)
        job = self._job(out, workload)
        if task.stage == "lower":
            artifact = self._artifact(self._lower(offer.spec, job))
            self._open(offer.spec, artifact)
            return "artifact", self.given.home(artifact)
        if task.stage == "reference":
            return "reference", self._reference(offer.spec, job)
        model = self._step(offer.spec, job, workload)
        wanted = self._format(offer.spec, workload)
        return "model", self._numbers(self._model(model, wanted))

    def _data(self, out: Path, workload: Workload) -> DataInfo:
        split = workload.spec.split
        return write_data(
            out, lambda name: split(workload.params, name), workload.inputs,
            labelled=workload.labelled, progress=self.report,
        )  # fmt: skip

    def _reference(self, spec: Any, job: Job) -> Reference:
        data, model = self._data_entry(), self._own()
        info = codec.from_data(DataInfo, data.result.value, where=str(data.folder))
        found = write_reference(
            spec.open(model, job),
            model,
            data.folder / "test",
            info.splits["test"].items,
            job.out,
            self.report,
            batch=spec.batch,
        )
        return found.moved(lambda path: path.relative_to(job.out))

    def _job(self, out: Path, workload: Workload) -> Job:
        task = self.task
        reference = None if task.reference is None else self.given.own(task.reference)
        return Job(
            out=out, seed=task.seed, threads=task.threads, data=self._guarded(), workload=workload,
            progress=self.report, log=logging.getLogger(f"harness.build.{task.use.name}"),
            hardware=hardware(self.owner, task.hardware), reference=reference,
        )  # fmt: skip

    def _guarded(self) -> GuardedData | NoData:
        if self.task.data_key is None:
            return NoData()
        entry = self._data_entry()
        return GuardedData(entry.folder, codec.from_data(DataInfo, entry.result.value, where=str(entry.folder)))

    def _data_entry(self) -> cache.Entry:
        entry = self.store.get(self.task.data_key or "")
        if entry is None:
            raise PluginError(f"the data of workload {self.task.workload.name!r} are gone from the cache")
        return entry

    def _params(self, spec: Any) -> Any:
        return params.build(spec.params, self.task.use.params, owner=self.owner)

    def _incoming(self) -> Model:
        if self.task.model is None:
            raise PluginError(f"{self.owner} was given no model")
        return self.task.model

    def _own(self) -> Model:
        """Return the incoming model in files that are this step's alone."""
        return self.given.own(self._incoming())

    def _step(self, spec: Any, job: Job, workload: Workload) -> Any:
        if self.task.stage == "fit":
            return spec.fit(workload.params, job)
        if self.task.stage == "export":
            return parts.export(lambda model, own: spec.export(model, self.task.options, own), self._own(), job)
        return spec.compress(self._own(), self._params(spec), job)

    def _lower(self, spec: Any, job: Job) -> Any:
        given = self._params(spec)
        return parts.lower(lambda model, own: spec.lower(model, given, self.task.options, own), self._own(), job)

    def _open(self, spec: Any, artifact: Artifact) -> None:
        """Open the artifact and run one item, where models run here; what fails then belongs to the build."""
        given, task = self._params(spec), self.task
        if spec.runs_on is not None and spec.runs_on(given) != "here":
            return
        items = None
        if task.data_key is not None:
            entry = self._data_entry()
            items = opened.items_of(
                entry.folder, codec.from_data(DataInfo, entry.result.value, where=str(entry.folder))
            )
        self.report(1.0, "opening what was built")
        opened.run_once(
            spec,
            artifact,
            given,
            task.options,
            items,
            self._incoming().inputs,
            memory_limit_bytes=task.memory_limit_bytes,
        )

    def _format(self, spec: Any, workload: Workload) -> str:
        if self.task.stage == "fit":
            return workload.produces
        wanted: str | None = spec.produces
        return wanted or self._incoming().format

    def _model(self, model: object, wanted: str) -> Model:
        if not isinstance(model, Model):
            raise PluginError(f"{self.owner} gave {type(model).__name__} where Model is due")
        if model.format != wanted:
            raise PluginError(f"{self.owner} gave a {model.format!r} model, it declares {wanted!r}")
        if not model.inputs or not model.outputs:
            raise PluginError(f"{self.owner} gave a model without {'inputs' if not model.inputs else 'outputs'}")
        self._short(flags=model.flags)
        return self.given.home(model)

    def _numbers(self, model: Model) -> Model:
        """Refuse a model in whose weights the step left NaN: whatever comes later would be blamed for it."""
        reader = self.task.reader
        if reader is None:
            return model
        count = self.plugins.offer("inspector", reader).spec.nan_weights
        try:
            found = count(model)
            before = count(self._own()) if found else {}
        except Exception as error:  # noqa: BLE001  what cannot be read is told where it is published or read next
            logging.getLogger("harness.build").info("the weights were not looked at: %s", error)
            return model
        if found and not before:
            name, bad = next(iter(found.items()))
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise PluginError(f"{self.owner} left weights that are no numbers: {bad} NaN in {name!r}{more}")
        return model

    def _artifact(self, artifact: object) -> Artifact:
        if not isinstance(artifact, Artifact):
            raise PluginError(f"{self.owner} gave {type(artifact).__name__} where Artifact is due")
        if not artifact.sha256 or artifact.artifact_bytes <= 0:
            raise PluginError(f"{self.owner} gave an artifact without {'sha256' if not artifact.sha256 else 'size'}")
        self._short(realised=artifact.realised, how=artifact.how, stored_as=artifact.stored_as, flags=artifact.flags)
        return artifact

    def _short(self, **given: str | tuple[str, ...]) -> None:
        """Refuse texts that would fill a board."""
        for name, value in given.items():
            for text in (value,) if isinstance(value, str) else value:
                if len(text) > LONGEST or not text.isprintable():
                    what = f"{len(text)} characters" if len(text) > LONGEST else "control characters"
                    raise PluginError(f"{self.owner} gave {name!r} with {what}; a short line is due")

    def publish(self, out: Path, kind: str, value: DataInfo | Model | Artifact | Reference, seconds: float) -> None:
        task = self.task
        outside: tuple[str, ...] = ()
        if isinstance(value, DataInfo):
            data, digest = codec.to_data(value), value.sha256(*value.splits)
        elif isinstance(value, Reference):
            data, digest = codec.to_data(value), codec.content_sha256(out)
        else:
            if isinstance(value, Model):
                value = self._told(value, out, seconds)
            data, outside = values.store(value, out, self.store.folder(task.key), self.store.root)
            digest = codec.content_sha256(value.path)
        result = cache.Result(cache.SCHEMA, task.key, kind, data, digest, seconds, task.inputs, outside=outside)
        _no_links(out)
        self.store.publish(out, result)

    def _told(self, model: Model, out: Path, seconds: float) -> Model:
        """Return the model with this step in its lineage, and with flags where the step did less than it was asked."""
        task = self.task
        before = task.model.lineage if task.model else ()
        own = model.lineage[len(before) :]
        effect = own[-1].effect if own else _effect(out / EFFECT)
        offer = self.plugins.offer(KIND[task.stage], task.use)
        record = StepRecord(
            failure_stage(task.stage), task.use.name, dict(task.use.params), task.seed, seconds,
            offer.plugin, offer.version, effect or _effect(out / EFFECT),
        )  # fmt: skip
        if task.stage != "compress":
            return dataclasses.replace(model, lineage=(*before, record))
        spec = offer.spec
        record = dataclasses.replace(record, asked=self._asked(spec), unchanged=_same(model, self._incoming()))
        family = spec.family if spec.family != "none" or task.use.name == ANCHOR else "other"
        flags = claims.step_flags(family, spec.changes, before, record)
        return dataclasses.replace(model, lineage=(*before, record), flags=(*model.flags, *flags))

    def _asked(self, spec: Any) -> Asked | None:
        given = self._params(spec)
        if spec.asks is not None:
            asked: Asked = spec.asks(given)
            return asked
        return claims.asked_of(spec.wants(given)) if spec.wants is not None else None


def _same(model: Model, before: Model) -> bool:
    """Tell whether a step gave the model that it was given: the same content, and the same wish for a precision."""
    kept = dataclasses.replace(model.precision, encodings=None) == dataclasses.replace(before.precision, encodings=None)
    return kept and codec.content_sha256(model.path) == codec.content_sha256(before.path)


def _effect(path: Path) -> dict[str, float]:
    """Read what the step wrote about its own result: a JSON object of numbers in ``job.out / "effect.json"``."""
    if not path.exists():
        return {}
    return codec.loads(dict[str, float], path.read_bytes(), where=path.name)


def _no_links(out: Path) -> None:
    for path in out.rglob("*"):
        if path.is_symlink():
            raise PluginError(f"{os.path.relpath(path, out)} is a link; a step leaves files")
