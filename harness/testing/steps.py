"""What the kit's process does with a plugin's functions, one message each; it sees, and judges nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec, params
from harness.build.data import read_split, write_data
from harness.build.job import Hardware, Workload
from harness.build.reference import Reference, write_reference
from harness.build.tasks import Use
from harness.codec import content_sha256
from harness.errors import PluginError
from harness.shards import load_shard
from harness.specs import Job
from harness.testing.jobs import WatchedHardware, folder_state, items_of, make_job, save_arrays, seed_all
from harness.testing.observed import Answered, Lowered, Material, Raised, Splits, Stepped, Watched
from harness.testing.watch import raised, watching
from harness.types import Artifact, Model, Options, Precision

if TYPE_CHECKING:
    from harness.build.run import Plugins

FRAMEWORKS = frozenset({"torch", "tensorflow", "jax", "keras", "paddle"})


class Steps:
    """Answers of the kit's process about everything but sessions."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def reference(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run and examine a sample's trained model."""
        use = codec.from_data(Use, message["workload"])
        material = codec.from_data(Material, message["material"])
        sample = self.plugins.offer("workload", use).spec.sample
        model, inputs = codec.from_data(Model, message["model"]), items_of(material)
        save_arrays(material.reference, sample.run(model, inputs))
        return {"examined": codec.to_data(sample.examine(model, inputs))}

    def step(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run compress, export or fit once and look at what it gave."""
        use, kind = codec.from_data(Use, message["use"]), message["step"]
        material = codec.from_data(Material, message["material"])
        incoming = codec.from_data(Model, message["model"]) if message.get("model") else None
        spec = self.plugins.offer({"compress": "method", "export": "exporter", "fit": "workload"}[kind], use).spec
        hardware = WatchedHardware(f"{use.name!r}", message.get("hardware") or {})
        job, data = make_job(material, self.plugins, Path(message["out"]), message["seed"], hardware)
        call = _call(kind, spec, use, incoming, job)
        before = folder_state(incoming.path) if incoming else ""
        seed_all(message["seed"])
        value, error, watched = _under_watch(call, job.out)
        changed = bool(incoming and folder_state(incoming.path) != before)
        seen = Stepped(
            watched,
            error,
            type(value).__name__,
            reads=tuple(dict.fromkeys(hardware.asked)),
            test_asked=data.test_asked,
            input_changed=changed,
        )
        if isinstance(value, Model):
            seen = self._look(seen, value, job, incoming, material, examine=kind != "export")
        return {"seen": codec.to_data(seen)}

    def _look(
        self, seen: Stepped, model: Model, job: Job, incoming: Model | None, material: Material, *, examine: bool
    ) -> Stepped:
        if not model.path.exists():
            return dataclasses.replace(seen, model=model, exists=False)
        effect = job.out / "effect.json"
        seen = dataclasses.replace(
            seen,
            model=model,
            content_sha256=content_sha256(model.path),
            content_bytes=_size(model.path),
            inside=model.path.resolve().is_relative_to(job.out.resolve())
            or bool(incoming and model.path.resolve() == incoming.path.resolve()),
            effect=json.loads(effect.read_text()) if effect.is_file() else {},
        )
        return self._examine(seen, model, job, material) if examine else seen

    def _examine(self, seen: Stepped, model: Model, job: Job, material: Material) -> Stepped:
        sample = self.plugins.offer("workload", material.workload).spec.sample
        if sample is None:
            return seen
        try:
            inputs = items_of(material)
            outputs = save_arrays(job.out.with_name(f"{job.out.name}-outputs"), sample.run(model, inputs))
            return dataclasses.replace(seen, examined=sample.examine(model, inputs), outputs=outputs)
        except Exception as error:  # noqa: BLE001  a model that cannot be read is what is being looked for
            return dataclasses.replace(seen, examine_failed=str(raised(error)))

    def oracle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Ask an oracle for the test items' answers, as a build does."""
        use, material = codec.from_data(Use, message["use"]), codec.from_data(Material, message["material"])
        spec, model = self.plugins.offer("oracle", use).spec, codec.from_data(Model, message["model"])
        job, _data = make_job(material, self.plugins, Path(message["out"]), 0, None)
        answers, test, before = job.out / "answers", material.data / "test", folder_state(model.path)

        def ask() -> Reference:
            found = spec.open(model, job)
            return write_reference(found, model, test, material.items, answers, job.progress, batch=spec.batch)

        value, error, watched = _under_watch(ask, job.out)
        seen = Answered(watched, error, input_changed=folder_state(model.path) != before)
        if isinstance(value, Reference):
            arrays: dict[str, Any] = {name: load_shard(value.files[name]) for name in model.outputs}
            saved = save_arrays(job.out.with_name(f"{job.out.name}-outputs"), arrays)
            seen = dataclasses.replace(seen, oracle=value.oracle, outputs=saved)
        return {"seen": codec.to_data(seen)}

    def lower(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Lower a model in one precision."""
        import sys

        use, material = codec.from_data(Use, message["use"]), codec.from_data(Material, message["material"])
        spec = self.plugins.offer("target", use).spec
        model = dataclasses.replace(
            codec.from_data(Model, message["model"]), precision=codec.from_data(Precision, message["precision"])
        )
        options = codec.from_data(Options, message["options"])
        job, _data = make_job(material, self.plugins, Path(message["out"]), options.seed, None)
        job = dataclasses.replace(job, hardware=Hardware(f"target {use.name!r}", message["hardware"]), reference=None)
        values = params.build(spec.params, use.params, owner=f"target {use.name!r}")
        before = folder_state(model.path)
        for name in _foreign_frameworks(spec.packages) - set(sys.modules):
            sys.modules[name] = None  # type: ignore[assignment]  # how Python blocks an import
        seed_all(options.seed)
        value, error, watched = _under_watch(lambda: spec.lower(model, values, options, job), job.out)
        blocked = error is not None and any(f"import of {name}" in error.message for name in FRAMEWORKS)
        seen = Lowered(
            watched,
            error,
            type(value).__name__,
            blocked=blocked,
            input_changed=folder_state(model.path) != before,
        )
        if isinstance(value, Artifact):
            there = value.path.exists()
            seen = dataclasses.replace(
                seen,
                artifact=value,
                exists=there,
                inside=value.path.resolve().is_relative_to(job.out.resolve()),
                file_sha256=content_sha256(value.path) if there else "",
                file_bytes=_size(value.path) if there else 0,
                all_bytes=_size(job.out),
                folder=value.path.is_dir(),
            )
        return {"seen": codec.to_data(seen)}

    def splits(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Draw a workload's data twice and score it."""
        use, out = codec.from_data(Use, message["use"]), Path(message["out"])
        workload = Workload.of(self.plugins.offer("workload", use).spec, use.params)
        out.mkdir(parents=True)
        seen, error, watched = _under_watch(lambda: self._splits(workload, out), out)
        found = seen or Splits(watched)
        return {"seen": codec.to_data(dataclasses.replace(found, watched=watched, raised=error))}

    def _splits(self, workload: Workload, out: Path) -> Splits:
        nothing = Watched(0.0)
        digests: list[dict[str, str]] = []
        for turn in ("first", "second"):
            folder = out / turn
            folder.mkdir()
            try:
                info = write_data(
                    folder,
                    lambda name: workload.spec.split(workload.params, name),
                    workload.inputs,
                    labelled=workload.labelled,
                    progress=lambda _share, _text: None,
                )
            except PluginError as error:
                return Splits(nothing, problem=error.message)
            digests.append({name: info.sha256(name) for name in info.splits})
        items = workload.spec.split(workload.params, "test")
        return Splits(nothing, first=digests[0], second=digests[1], items=len(next(iter(items.inputs.values()))))

    def score(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Score a trained model's outputs, in order and permuted."""
        import numpy as np

        use, material = codec.from_data(Use, message["use"]), codec.from_data(Material, message["material"])
        workload = Workload.of(self.plugins.offer("workload", use).spec, use.params)
        split = read_split(material.data / "test", material.info.splits["test"], material.info.inputs)
        outputs = {
            name: np.load(path, allow_pickle=False)
            for name, path in zip(workload.outputs, sorted(material.reference.glob("*.npy")), strict=True)
        }
        if split.labels is None or workload.spec.score is None:
            return {"seen": codec.to_data(Splits(Watched(0.0), stage="unlabelled"))}
        labels, order = np.asarray(split.labels), np.random.default_rng(0).permutation(len(split.labels))

        def call() -> Splits:
            scores = np.asarray(workload.score(outputs, labels))
            mixed = np.asarray(workload.score({k: v[order] for k, v in outputs.items()}, labels[order]))
            equal = mixed.shape == scores.shape and bool(np.allclose(mixed, scores[order], equal_nan=True))
            metric = workload.aggregate(scores) if scores.ndim == 2 else float("nan")
            return Splits(
                Watched(0.0),
                scores=sorted(set(scores.ravel()[:1000].tolist()))[:5],
                permuted_equal=equal,
                scores_shape=scores.shape,
                metric=_finite(metric),
                aggregate=repr(metric),
                items=len(labels),
            )

        seen, error, watched = _under_watch(call, Path(message["out"]))
        return {"seen": codec.to_data(dataclasses.replace(seen or Splits(watched), raised=error, watched=watched))}


def _finite(metric: Any) -> float | None:
    """Return a metric as a number, or nothing where it is none or no finite one."""
    try:
        found = float(metric)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _foreign_frameworks(packages: tuple[str, ...]) -> frozenset[str]:
    """Return the frameworks that lowering has to do without: all but those that a target names as its own runtime."""
    return FRAMEWORKS - {name.lower().replace("-", "_") for name in packages}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _call(kind: str, spec: Any, use: Use, incoming: Model | None, job: Job) -> Callable[[], Any]:
    if kind == "export":
        return lambda: spec.export(incoming, Options(), job)
    values = params.build(spec.params, use.params, owner=f"{use.name!r}")
    if kind == "fit":
        return lambda: spec.fit(values, job)
    return lambda: spec.compress(incoming, values, job)


def _under_watch(call: Callable[[], Any], inside: Path) -> tuple[Any, Raised | None, Watched]:
    value, error = None, None
    with watching(inside) as watch:
        try:
            value = call()
        except Exception as caught:  # noqa: BLE001  a plugin may raise anything; the checks judge it
            error = raised(caught)
    return value, error, watch.seen()
