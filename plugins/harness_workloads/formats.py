"""What a user's model file declares: inputs, outputs and the files it is made of, read without running it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from harness.api import BadModel, MissingDependency, TensorSpec, first_line

SUFFIXES = {".onnx": "onnx", ".pt2": "torch", ".tflite": "tflite"}
# torch's ScalarType numbers, as torch.export writes them
_SCALARS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """A model file's interface.

    Attributes:
        format: "onnx", "torch" or "tflite".
        files: The file itself first, then those that it points to.
    """

    format: str
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[str, ...]
    files: tuple[Path, ...]


def model_format(path: Path) -> str:
    """Return the format that the suffix tells.

    Raises:
        BadModel: It is none of ours.
    """
    if path.suffix not in SUFFIXES:
        raise BadModel(f"model file {path} is none of {', '.join(SUFFIXES)}")
    return SUFFIXES[path.suffix]


def declared(path: Path) -> Declared:
    """Read a model file's interface; a file that did not change is read once.

    Raises:
        BadModel: It is missing, broken, or points to files outside its folder.
        MissingDependency: What reads this format is not installed.
    """
    kind = model_format(path)
    try:
        state = path.stat()
    except OSError as error:
        raise BadModel(f"model file {path} cannot be read: {error.strerror}") from error
    return _declared(kind, path.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _declared(kind: str, path: Path, _modified_ns: int, _size: int) -> Declared:
    return {"onnx": _onnx, "torch": _program, "tflite": _tflite}[kind](path)


def _onnx(path: Path) -> Declared:
    model = onnx_model(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {item.name: _onnx_spec(path, item) for item in model.graph.input if item.name not in stored}
    outputs = tuple(item.name for item in model.graph.output)
    if not inputs or not outputs:
        raise BadModel(f"model file {path} declares no {'outputs' if inputs else 'inputs'}")
    return Declared("onnx", inputs, outputs, (path, *_external(path, model)))


def onnx_model(path: Path) -> Any:
    """Parse an ONNX file, leaving external data where it is.

    Raises:
        BadModel: It is no ONNX file.
        MissingDependency: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            "reading .onnx files needs onnx, which is not installed",
            hint="pip install 'compression-harness[onnxruntime]'",
        ) from error
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own DecodeError, of a package that only onnx depends on
        raise BadModel(f"model file {path} is no ONNX file: {first_line(str(error))}") from error


def _onnx_spec(path: Path, item: Any) -> TensorSpec:
    from onnx import helper

    if not item.type.HasField("tensor_type"):
        raise BadModel(f"input {item.name!r} of {path} is no tensor")
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        raise BadModel(f"input {item.name!r} of {path} declares no shape")
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
    return TensorSpec(str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every stored tensor of a graph, those in attributes and nested graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for nested in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _tensors(nested)


def _external(path: Path, model: Any) -> tuple[Path, ...]:
    """Return the external-data files; each must lie in the model's own folder, also after following links."""
    files = set()
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            file = (path.parent / entry.value).resolve()
            if PurePosixPath(entry.value).is_absolute() or not file.is_relative_to(path.parent):
                raise BadModel(
                    f"model file {path} points to external data outside its folder: {entry.value!r}",
                    hint="save the model with its data beside it, or in one file",
                )
            if not file.is_file():
                raise BadModel(f"model file {path} points to external data that is not there: {entry.value!r}")
            files.add(file)
    return tuple(sorted(files))


def _program(path: Path) -> Declared:
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.namelist()
            _refuse_pickles(path, archive, held)
            (program,) = [name for name in held if name.endswith(".json") and "/models/" in name]
            module = json.loads(archive.read(program))["graph_module"]
            signature, values = module["signature"], module["graph"]["tensor_values"]
            arguments = [item["user_input"]["arg"] for item in signature["input_specs"] if "user_input" in item]
            results = [item for item in signature["output_specs"] if "user_output" in item]
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise BadModel(
            f"model file {path} is no program of torch.export: {first_line(str(error))}",
            hint="write it with torch.export.save(torch.export.export(model, inputs, dynamic_shapes=…), path)",
        ) from error
    inputs = dict(_argument(path, argument, values) for argument in arguments)
    outputs = ("output",) if len(results) == 1 else tuple(f"output{i}" for i in range(len(results)))
    return Declared("torch", inputs, outputs, (path,))


def _refuse_pickles(path: Path, archive: zipfile.ZipFile, held: list[str]) -> None:
    """Refuse payloads that torch would unpickle: they can run any code when read."""
    configs = [name for name in held if name.endswith("_config.json")]
    payloads = [item for name in configs for item in json.loads(archive.read(name))["config"].values()]
    legacy = [name for name in held if "/data/weights/" in name and name.endswith(".pt")]
    if legacy or any(item["use_pickle"] or "_obj_" in item["path_name"] for item in payloads):
        raise BadModel(f"model file {path} holds pickled objects, which are refused", hint="export plain dense tensors")


def _argument(path: Path, argument: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, TensorSpec]:
    if "as_tensor" not in argument:
        raise BadModel(f"model file {path} takes an argument that is no tensor")
    name = argument["as_tensor"]["name"]
    shape = tuple(size.get("as_int") for size in values[name]["sizes"])
    if not shape or shape[0] is not None:
        raise BadModel(
            f"input {name!r} of {path} was exported with a fixed batch",
            hint="export with dynamic_shapes=({0: torch.export.Dim('batch')}, …), one entry for each input",
        )
    dtype = _SCALARS.get(values[name]["dtype"])
    if dtype is None:
        raise BadModel(f"input {name!r} of {path} has a dtype that arrays cannot hold")
    return name, TensorSpec(dtype, shape)


def _tflite(path: Path) -> Declared:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependency(
            "reading .tflite files needs ai-edge-litert, which is not installed",
            hint="pip install 'compression-harness[tflite]'",
        ) from error
    try:
        interpreter = Interpreter(str(path))
    except ValueError as error:
        raise BadModel(f"model file {path} is no TensorFlow Lite model: {first_line(str(error))}") from error
    signatures = interpreter.get_signature_list()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        named, given = runner.get_input_details(), tuple(runner.get_output_details())
    else:
        named, given = {item["name"]: item for item in inputs}, tuple(item["name"] for item in outputs)
    return Declared("tflite", {name: _tflite_spec(item) for name, item in named.items()}, given, (path,))


def _tflite_spec(item: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    signature = item.get("shape_signature", item["shape"])
    return TensorSpec(str(np.dtype(item["dtype"])), tuple(None if size < 0 else int(size) for size in signature))
