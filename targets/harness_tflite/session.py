"""A LiteRT interpreter as a session: host arrays in and out, one call, no live views."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, LayerOutput, Options, Placement, TensorSpec, Unsupported
from harness_tflite import flatbuffer
from harness_tflite.layers import Layers
from harness_tflite.params import Params
from harness_tflite.placement import graph_of, list_nodes, placements
from harness_tflite.profiling import as_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

AXES = "axes.json"  # beside a file: input -> its item axis, where not all items lie on the first dimension


class TfliteSession:
    """A loaded .tflite file.

    Args:
        artifact: What ``lower`` wrote.
        params: Whether XNNPACK runs what it can.
        options: Threads, and the batch that the inputs are resized to where the file has another.
        as_stored: Leave the inputs at the shapes that the file has.

    Raises:
        Unsupported: The file cannot be resized to the batch.
    """

    def __init__(self, artifact: Artifact, params: Params, options: Options, *, as_stored: bool = False) -> None:
        from ai_edge_litert import interpreter as litert

        before = _os_threads()
        self._path, self._xnnpack = artifact.path, params.xnnpack
        self._load_bytes = partial(_load, litert, params, options, None if as_stored else artifact.path)
        self._interpreter, self._resized = self._load_bytes(model_path=str(artifact.path))
        self._layers: Layers | None = None
        self._inputs, self._outputs = details(self._interpreter, artifact.path)
        self._pool = _os_threads() - before  # XNNPACK starts its threads while tensors are allocated

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, of fixed shape; 64-bit integers of the workload are 32-bit here and are cast by ``run``."""
        return {name: _spec(entry) for name, entry in self._inputs.items()}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {name: _spec(entry) for name, entry in self._outputs.items()}

    @property
    def indices(self) -> Mapping[str, int]:
        """Tensor index of every input and output."""
        return {name: int(entry["index"]) for name, entry in {**self._inputs, **self._outputs}.items()}

    def in_order(self, indices: Mapping[str, int]) -> tuple[list[str], list[str]]:
        """Return the names of inputs and outputs in the order of the file, which a signature need not keep."""
        listed = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        names = tuple({indices[name]: name for name in side} for side in (self._inputs, self._outputs))
        found = [[names[side][int(entry["index"])] for entry in listed[side]] for side in (0, 1)]
        return found[0], found[1]

    def run(self, inputs: Arrays) -> Arrays:
        """Copy the inputs in, run, and copy the outputs out."""
        self._set(inputs)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(entry["index"]) for name, entry in self._outputs.items()}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Copy the inputs in once; the call only runs."""
        self._set(inputs)
        invoke: Callable[[], None] = self._interpreter.invoke
        return invoke

    def layers(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Run once and yield what each operator gives, from a second interpreter of the same options."""
        if self._layers is None:
            self._layers = Layers(self._path, lambda raw: self._load_bytes(model_content=raw)[0])
        yield from self._layers.run(dict(self._cast(inputs)))

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per kernel that ran, as LiteRT's profiler names it, with its share of time.

        Without XNNPACK, for another batch than the file's, and where the profiler does not tell, it is one entry per
        operator of the file, in order, and no times.
        """
        listed = placements(graph_of(self._interpreter), batch=_batch(self._interpreter))
        return as_run(self._path, listed) if self._xnnpack and not self._resized else listed

    def effective(self) -> Mapping[str, str]:
        """Return the threads that the runtime started, counted, and whether XNNPACK took part."""
        delegates = sum(entry["op_name"] == "DELEGATE" for entry in list_nodes(self._interpreter))
        threads = f"{1 + self._pool} (the caller and {self._pool} of the runtime's, counted)"
        return {"threads": threads, "xnnpack": f"{delegates} partitions" if delegates else "off", "device": "cpu"}

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = self._layers = None

    def _set(self, inputs: Arrays) -> None:
        for index, values in self._cast(inputs):
            self._interpreter.set_tensor(index, values)

    def _cast(self, inputs: Arrays) -> Iterator[tuple[int, NDArray[Any]]]:
        for name, entry in self._inputs.items():
            yield int(entry["index"]), inputs[name].astype(entry["dtype"], copy=False)


def plain_session(path: Path, threads: int) -> TfliteSession:
    """Return a session of a file at the shapes that it has, with LiteRT's defaults."""
    return TfliteSession(Artifact(path, "tflite", "", "", "", 0, 0), Params(), Options(threads), as_stored=True)


def _load(litert: Any, params: Params, options: Options, sized_by: Path | None, **source: Any) -> tuple[Any, bool]:
    """Return an allocated interpreter, and whether it was resized, which it may be where a file tells the item axes."""
    kinds = litert.OpResolverType
    resolver = kinds.AUTO if params.xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(**source, num_threads=options.threads, experimental_op_resolver_type=resolver)
    resized = sized_by is not None and _fit_batch(interpreter, options.batch, _axes(interpreter, sized_by))
    interpreter.allocate_tensors()
    return interpreter, resized


def _axes(interpreter: Any, path: Path) -> dict[int, int | None]:
    """Return the item axis of inputs by tensor index, where lowering left word that it is not the first."""
    told = path.with_name(AXES)
    if not told.is_file():
        return {}
    known: dict[str, int | None] = json.loads(told.read_text())
    return {int(entry["index"]): known[name] for name, entry in details(interpreter, path)[0].items() if name in known}


def _fit_batch(interpreter: Any, batch: int, axes: Mapping[int, int | None]) -> bool:
    """Resize the batch of every input where the file was made for another one; tell whether it was."""
    resized = False
    for entry in interpreter.get_input_details():
        shape, axis = [int(size) for size in entry["shape"]], axes.get(int(entry["index"]), 0)
        if axis is not None and len(shape) > axis and shape[axis] != batch:
            shape[axis] = batch
            interpreter.resize_tensor_input(entry["index"], shape)
            resized = True
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise Unsupported(f"the file cannot be resized to batch {batch}: {str(error).splitlines()[0]}") from error
    return resized


def details(interpreter: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensor details by signature name; by tensor name for a file without a signature."""
    listed = interpreter.get_input_details(), interpreter.get_output_details()
    if not interpreter.get_signature_list():
        return tuple({entry["name"]: entry for entry in entries} for entries in listed)  # type: ignore[return-value]
    signature = next(iter(interpreter._get_full_signature_list().values()))
    names = flatbuffer.signature_names(path)
    by_index = tuple({entry["index"]: entry for entry in entries} for entries in listed)
    return (
        {name: by_index[0][signature["inputs"][name]] for name in names[0]},
        {name: by_index[1][signature["outputs"][name]] for name in names[1]},
    )


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    return TensorSpec(np.dtype(entry["dtype"]).name, tuple(int(size) for size in entry["shape"]))


def _batch(interpreter: Any) -> int:
    details = interpreter.get_input_details()
    return int(details[0]["shape"][0]) if details and len(details[0]["shape"]) else 1


def _os_threads() -> int:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 0
