"""Look into a model in a builder: fit it without training, read what it holds, and ask each target about it."""

from __future__ import annotations

import logging
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import explain, params
from harness.build.job import Workload
from harness.build.tasks import Examine, Inspect, Seen, Use
from harness.errors import HarnessError
from harness.inspection import Finding, Inspected
from harness.specs import Job, Split
from harness.types import Model, Options, SplitName

if TYPE_CHECKING:
    from harness.build.run import Plugins

_TO_HERE = re.compile(r" \('harness inspect'[^)]*\)$")  # where the reader is already
_LOG = logging.getLogger("harness.build.inspect")


class _Direct:
    """The workload's data as its own function gives them, for a fit that trains nothing."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def split(self, name: SplitName) -> Split:
        """Return a split."""
        return self._workload.spec.split(self._workload.params, name)


def job_of(workload: Workload, out: Path) -> Job:
    """Return the job of a step whose result is looked at and thrown away."""
    out.mkdir(parents=True, exist_ok=True)
    return Job(out, 0, 1, _Direct(workload), workload, lambda _share, _text: None, _LOG)


def inspect(asked: Inspect, plugins: Plugins) -> Seen:
    """Make the workload's model in the folder that is asked for, and read it and the file that it came from.

    Raises:
        HarnessError: The model or its data are refused, or no plugin reads the format.
    """
    workload = Workload.of(plugins.offer("workload", asked.workload).spec, asked.workload.params)
    model, problem = _made(workload, asked)
    shapes, items = _shapes(model, workload)
    reader = asked.readers.get(model.format)
    if reader is None:
        return Seen(model, tuple(model.inputs), shapes, items, None, None, problem)
    read = plugins.offer("inspector", reader).spec.inspect
    # A program of torch.export is read as the module that it becomes; other files also as they came.
    own = bool(asked.file) and Path(asked.file).suffix == model.path.suffix
    given: Inspected = read(replace(model, path=Path(asked.file)) if own else model, shapes)
    prepared = read(model, shapes) if own and not problem else given
    return Seen(model, tuple(model.inputs), shapes, items, given, prepared, problem)


def _made(workload: Workload, asked: Inspect) -> tuple[Model, str]:
    """Return the model as targets get it; where it cannot be prepared, the file as it came, and why."""
    try:
        made: Model = workload.spec.fit(workload.params, job_of(workload, Path(asked.folder) / "model"))
    except HarnessError as error:
        if Path(asked.file).suffix != f".{workload.produces}":  # nothing else can be read without its workload
            raise
        return Model(workload.produces, Path(asked.file), workload.inputs, workload.outputs), str(error)
    return made, ""


def _shapes(model: Model, workload: Workload) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shape of each input for one item, as far as the data tell, and how many items there are."""
    try:
        arrays = _Direct(workload).split("test").inputs
    except HarnessError:  # inputs with free dimensions and no data: the shapes that are fixed are known all the same
        arrays = {}
    found: dict[str, tuple[int, ...]] = {}
    items = 0
    for name, spec in model.inputs.items():
        if name not in arrays:
            shape = tuple(1 if axis == spec.axis and size is None else size for axis, size in enumerate(spec.shape))
            if None not in shape:
                found[name] = tuple(size for size in shape if size is not None)
            continue
        held = arrays[name].shape
        if spec.role != "item":
            found[name] = tuple(held)
            continue
        items, rest = held[0], held[1:]
        found[name] = rest if spec.axis is None else (*rest[: spec.axis], 1, *rest[spec.axis :])
    return found, items


def examine(asked: Examine, plugins: Plugins) -> tuple[tuple[Finding, ...], ...]:
    """Ask a target about a model once for each precision, after the exporters that lead to it.

    Raises:
        HarnessError: The model cannot be exported.
    """
    spec = plugins.offer("target", asked.use).spec
    given = params.build(spec.params, asked.use.params, owner=f"target {spec.name!r}")
    workload = Workload.of(plugins.offer("workload", asked.workload).spec, asked.workload.params)
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        model = _exported(asked.model, asked.exporters, plugins, workload, Path(folder))
        wanted = [model.precision if precision is None else precision for precision in asked.precisions]
        return tuple(findings_of(spec, replace(model, precision=precision), given) for precision in wanted)


def _exported(model: Model, exporters: tuple[Use, ...], plugins: Plugins, workload: Workload, folder: Path) -> Model:
    for place, use in enumerate(exporters):
        spec = plugins.offer("exporter", use).spec
        model = spec.export(model, Options(), job_of(workload, folder / str(place)))
    return model


def findings_of(spec: Any, model: Model, given: Any) -> tuple[Finding, ...]:
    """Return what a target says of a model in the precision that it asks for."""
    if spec.examine is None:
        return ()
    try:
        return tuple(spec.examine(model, given))
    except Exception as error:  # noqa: BLE001  a runtime may raise anything of a foreign model: that is the answer
        where = explain.Where("plan", spec.name, f"{spec.name} could not load it", spec.known_errors)
        return (Finding(_TO_HERE.sub("", explain.failure(error, where).reason)),)
