"""The answers of a .tflite file: by LiteRT's reference kernels, or by its built-in ones where those take too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, MissingDependency, Model
from harness_tflite.session import details

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_KERNELS = {
    "BUILTIN_REF": "LiteRT BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES": "LiteRT built-in kernels, no delegate",
}  # fmt: skip


@dataclass(frozen=True)
class Interpreted:
    """A file in an interpreter with one set of kernels."""

    label: str
    interpreter: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch, as large as the arrays are."""
        shapes = {int(entry["index"]): entry["shape"] for entry in self.interpreter.get_input_details()}
        other = [(name, index) for name, index in self._indices() if list(shapes[index]) != list(inputs[name].shape)]
        for name, index in other:
            self.interpreter.resize_tensor_input(index, list(inputs[name].shape))
        self.interpreter.allocate_tensors()
        for name, index in self._indices():
            self.interpreter.set_tensor(index, inputs[name].astype(self.inputs[name]["dtype"], copy=False))
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(entry["index"]) for name, entry in self.outputs.items()}

    def _indices(self) -> list[tuple[str, int]]:
        return [(name, int(entry["index"])) for name, entry in self.inputs.items()]


def open_oracles(model: Model, job: Job) -> Iterator[Interpreted]:
    """Yield the reference kernels, then the others.

    Raises:
        MissingDependency: LiteRT is not installed.
    """
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError as error:
        hint = "pip install 'compression-harness[tflite]'"
        raise MissingDependency(f"LiteRT cannot be imported: {error}", hint=hint) from error
    for kind, label in _KERNELS.items():
        resolver = getattr(litert.OpResolverType, kind)
        interpreter = litert.Interpreter(
            str(model.path), num_threads=job.threads, experimental_op_resolver_type=resolver
        )
        yield Interpreted(label, interpreter, *details(interpreter, model.path))
