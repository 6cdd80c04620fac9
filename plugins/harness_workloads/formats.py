"""What a user's model file declares: inputs, outputs and the files it is made of, read without running it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from harness.api import BadModel, MissingDependency, TensorSpec, first_line
from harness_workloads.roles import UNNAMED, Dims, Port

SUFFIXES = {".onnx": "onnx", ".pt2": "torch", ".tflite": "tflite"}
_FED = {
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
}  # fmt: skip
# torch's ScalarType numbers, as torch.export writes them
_SCALARS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """A model file's interface.

    Attributes:
        format: "onnx", "torch" or "tflite".
        inputs: As they stand in the file, by name in call order.
        files: The file itself first, then those that it points to.
        takes: The inputs with the names of their free dimensions.
        gives: The outputs likewise.
    """

    format: str
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[str, ...]
    files: tuple[Path, ...]
    takes: Mapping[str, Port] = field(default_factory=dict)
    gives: Mapping[str, Port] = field(default_factory=dict)


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
    takes = {item.name: _port(path, item) for item in model.graph.input if item.name not in stored}
    declared = list(model.graph.output)
    if not takes or not declared:
        raise BadModel(f"model file {path} declares no {'outputs' if takes else 'inputs'}")
    inferred = zip(declared, _inferred(model), strict=True)
    gives = {_own_name(item.name, takes): _best(_soft(item), known) for item, known in inferred}
    return Declared("onnx", _specs(takes), tuple(gives), (path, *_external(path, model)), takes, gives)


def _own_name(output: str, takes: Mapping[str, Port]) -> str:
    """Return the name of an output; one that is an input too gets another, by which the two can be told apart."""
    while output in takes:
        output += "_output"
    return output


def _specs(takes: Mapping[str, Port]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(port.dtype, tuple(dim if isinstance(dim, int) else None for dim in port.dims or ()))
        for name, port in takes.items()
    }


def _dims(name: str, shape: Any) -> Dims:
    """Return sizes and names of free dimensions.

    One without a name gets its own, and so does one whose name tells nothing: "?", or one that stands twice.
    """
    given = [dim.dim_param for dim in shape.dim]
    telling = {name for name in given if any(map(str.isalnum, name)) and given.count(name) == 1}
    return tuple(
        dim.dim_value if dim.dim_value > 0 else dim.dim_param if dim.dim_param in telling else f"{UNNAMED}{name}.{at}"
        for at, dim in enumerate(shape.dim)
    )


def _port(path: Path, item: Any) -> Port:
    from onnx import helper

    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        told = (kind or "of no type").removesuffix("_type").replace("_", " ")
        raise BadModel(
            f"input {item.name!r} of {path} is no tensor but {told}, and only arrays are fed here",
            hint="cut the graph behind what reads it, for example with onnx.utils.extract_model",
        )
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        raise BadModel(
            f"input {item.name!r} of {path} declares no shape",
            hint="give it one, for example with onnx.tools.update_model_dims.update_inputs_outputs_dims",
        )
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype not in _FED:
        raise BadModel(
            f"input {item.name!r} of {path} takes {'strings' if dtype == 'object' else dtype}, which is not fed here",
            hint="cut the graph behind what reads it, for example with onnx.utils.extract_model",
        )
    return Port(dtype, _dims(item.name, tensor.shape))


def _soft(item: Any) -> Port:
    """Return an output as declared; of what is no tensor nothing is known."""
    from onnx import helper

    if item.type.WhichOneof("value") != "tensor_type" or not item.type.tensor_type.elem_type:
        return Port("", None)
    tensor = item.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return Port(dtype, _dims(item.name, tensor.shape) if tensor.HasField("shape") else None)


def _inferred(model: Any) -> list[Port]:
    """Return the outputs by shape inference alone, so that they carry the names of the inputs' free dimensions."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    for item in bare.graph.input:
        if item.name not in stored:
            shape = item.type.tensor_type.shape
            for dim, known in zip(shape.dim, _dims(item.name, shape), strict=True):
                if isinstance(known, str):
                    dim.dim_param = known
    taken = {item.name for item in bare.graph.input}
    for item in bare.graph.output:
        if item.type.WhichOneof("value") == "tensor_type" and item.name not in taken:
            item.type.tensor_type.ClearField("shape")
    del bare.graph.value_info[:]
    try:
        found = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:  # noqa: BLE001  it raises of several classes; what is declared is left
        return [Port("", None) for _item in model.graph.output]
    inputs = {item.name: item for item in found.graph.input}
    return [_soft(inputs.get(item.name, item)) for item in found.graph.output]


def _best(declared: Port, inferred: Port) -> Port:
    """Return what is declared of an output, with what shape inference knows better."""
    if inferred.dims is None or (declared.dims is not None and len(declared.dims) != len(inferred.dims)):
        return declared
    if declared.dims is None:
        return Port(declared.dtype or inferred.dtype, inferred.dims)
    dims = (
        mine if isinstance(mine, int) or (isinstance(theirs, str) and theirs.startswith(("unk__", UNNAMED))) else theirs
        for mine, theirs in zip(declared.dims, inferred.dims, strict=True)
    )
    return Port(declared.dtype, tuple(dims))


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
    takes = dict(_argument(path, argument, values) for argument in arguments if "as_none" not in argument)
    names = _result_names(module, results)
    found = (values[item["user_output"]["arg"]["as_tensor"]["name"]] for item in results if _is_tensor(item))
    gives = {name: _value(value) for name, value in zip(names, found, strict=True)}
    return Declared("torch", _specs(takes), names, (path,), takes, gives)


def _is_tensor(result: Mapping[str, Any]) -> bool:
    return "as_tensor" in result["user_output"]["arg"]


def _value(value: Mapping[str, Any]) -> Port:
    dims = (size["as_int"] if "as_int" in size else str(size["as_expr"]["expr_str"]) for size in value["sizes"])
    return Port(_SCALARS.get(value["dtype"], ""), tuple(dims))


def _result_names(module: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of a program's outputs: keys and fields where it returns some, else "output0", "output1"."""
    count = len(results)
    names = ["output"] if count == 1 else [f"output{i}" for i in range(count)]
    try:
        whole = next(item for item in module["module_call_graph"] if item["fqn"] == "")
        found = list(_leaf_names(json.loads(whole["signature"]["out_spec"])[1], ()))
    except (LookupError, StopIteration, TypeError, ValueError):
        found = []
    if len(found) == count and (count > 1 or not found[0].startswith("output")) and all(found):
        names = found
    return tuple(name for name, item in zip(names, results, strict=True) if _is_tensor(item))


def _leaf_names(spec: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Yield the name of each leaf of what torch writes of a structure: nested names are joined by "_"."""
    children = spec["children_spec"]
    if spec["type"] is None:
        yield "_".join(names)
        return
    told = json.loads(spec["context"]) if spec["context"] else None
    keys = told if isinstance(told, list) and len(told) == len(children) else range(len(children))
    for key, child in zip(keys, children, strict=True):
        name = f"output{key}" if isinstance(key, int) and not names else str(key)
        yield from _leaf_names(child, (*names, name))


def _refuse_pickles(path: Path, archive: zipfile.ZipFile, held: list[str]) -> None:
    """Refuse payloads that torch would unpickle: they can run any code when read."""
    configs = [name for name in held if name.endswith("_config.json")]
    payloads = [item for name in configs for item in json.loads(archive.read(name))["config"].values()]
    legacy = [name for name in held if "/data/weights/" in name and name.endswith(".pt")]
    if legacy or any(item["use_pickle"] or "_obj_" in item["path_name"] for item in payloads):
        raise BadModel(f"model file {path} holds pickled objects, which are refused", hint="export plain dense tensors")


def _argument(path: Path, argument: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, Port]:
    if "as_tensor" not in argument:
        raise BadModel(f"model file {path} takes an argument that is no tensor")
    name = argument["as_tensor"]["name"]
    port = _value(values[name])
    if not port.dtype:
        raise BadModel(f"input {name!r} of {path} has a dtype that arrays cannot hold")
    return name, port


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
        named, given = runner.get_input_details(), runner.get_output_details()
    else:
        named, given = ({item["name"]: item for item in listed} for listed in (inputs, outputs))
    takes, gives = ({name: _tflite_port(name, item) for name, item in side.items()} for side in (named, given))
    return Declared("tflite", _specs(takes), tuple(gives), (path,), takes, gives)


def _tflite_port(name: str, item: Mapping[str, Any]) -> Port:
    """Return a tensor; free dimensions have no names in these files, but a free first one is the batch."""
    import numpy as np

    signature = enumerate(item.get("shape_signature", item["shape"]))
    free = ("batch" if at == 0 else f"{UNNAMED}{name}.{at}" for at in range(len(item["shape"])))
    dims = tuple(int(size) if size >= 0 else other for (_at, size), other in zip(signature, free, strict=True))
    return Port(str(np.dtype(item["dtype"])), dims)
