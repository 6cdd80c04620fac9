"""Write the zeros of 1x1 convolutions as TFLite's sparse tensors, which XNNPACK has kernels for on some CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_tflite import flatbuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_ZEROS = 0.5  # an index takes one or two bytes beside the four of a value; XNNPACK took 80 % of zeros, not 60 %


@dataclass(frozen=True)
class Sparse:
    """What was written sparse.

    Attributes:
        zeros: Share of zeros (0..1) by the name of the weight tensor.
        bytes_saved: Of the file.
    """

    zeros: Mapping[str, float]
    bytes_saved: int


def sparsify(path: Path, out: Path, least: float = LEAST_ZEROS) -> Sparse:
    """Rewrite a float32 file with the kernels of 1x1 convolutions that have many zeros in compressed rows.

    Each gets a DENSIFY operator before its convolution, as TensorFlow's converter writes it: a runtime with sparse
    kernels takes the rows as they are, any other unpacks them while it loads.

    Args:
        path: The file; not changed.
        out: Where the new one goes; not written where nothing qualifies.
        least: Share of zeros from which a kernel is written sparse.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(flatbuffer.open_model(path))
    graph = model.subgraphs[0]
    found: dict[str, float] = {}
    added: list[Any] = []
    code = len(model.operatorCodes)
    for operator, slot, weights in _candidates(schema, model, graph):
        share = float((weights == 0).mean())
        if share >= least:
            tensor = graph.tensors[operator.inputs[slot]]
            found[tensor.name.decode()] = share
            added.append(_densify(schema, model, graph, operator, slot, weights, code))
    if not found:
        return Sparse({}, 0)
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.version = schema.BuiltinOperator.DENSIFY, 1
    kind.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    model.operatorCodes.append(kind)
    graph.operators = [*added, *graph.operators]
    out.write_bytes(flatbuffer.pack(model))
    return Sparse(found, path.stat().st_size - out.stat().st_size)


def _candidates(schema: Any, model: Any, graph: Any) -> Iterator[tuple[Any, int, NDArray[Any]]]:
    """Yield the 1x1 convolutions whose float32 kernel is a constant that nothing else reads."""
    import numpy as np

    readers = [index for operator in graph.operators for index in operator.inputs]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.CONV_2D:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        shape = [int(size) for size in tensor.shape]
        data = model.buffers[tensor.buffer].data
        known = data is not None and tensor.type == schema.TensorType.FLOAT32 and tensor.sparsity is None
        if known and len(shape) == 4 and shape[1:3] == [1, 1] and readers.count(operator.inputs[1]) == 1:
            yield operator, 1, np.asarray(data, np.uint8).view(np.float32).reshape(shape)


def _densify(schema: Any, model: Any, graph: Any, operator: Any, slot: int, weights: NDArray[Any], code: int) -> Any:
    """Store a kernel sparse, and return the operator that makes it dense for its convolution."""
    import numpy as np

    tensor = graph.tensors[operator.inputs[slot]]
    dense = schema.TensorT()
    dense.name, dense.shape, dense.type, dense.buffer = tensor.name + b";dense", tensor.shape, tensor.type, 0
    graph.tensors.append(dense)
    rows = weights.reshape(weights.shape[0], -1)
    tensor.sparsity = _rows(schema, rows)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(rows[rows != 0].tobytes(), np.uint8)
    old = tensor.buffer
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    if all(other.buffer != old for part in model.subgraphs for other in part.tensors):
        model.buffers[old].data = None  # indices of buffers must not move, so it stays, empty
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, [operator.inputs[slot]], [len(graph.tensors) - 1]
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT()
    operator.inputs = list(operator.inputs)
    operator.inputs[slot] = len(graph.tensors) - 1
    return made


def _rows(schema: Any, rows: NDArray[Any]) -> Any:
    """Return the parameters of a kernel [out, 1, 1, in] in compressed rows: only its last dimension is sparse."""
    import numpy as np

    counts = np.count_nonzero(rows, axis=1)
    levels = []
    for size in (rows.shape[0], 1, 1):
        level = schema.DimensionMetadataT()
        level.format, level.denseSize = schema.DimensionType.DENSE, size
        levels.append(level)
    level = schema.DimensionMetadataT()
    level.format = schema.DimensionType.SPARSE_CSR
    level.arraySegmentsType, level.arraySegments = _vector(schema, np.concatenate(([0], np.cumsum(counts))))
    level.arrayIndicesType, level.arrayIndices = _vector(schema, np.nonzero(rows)[1])
    found = schema.SparsityParametersT()
    found.traversalOrder, found.dimMetadata = [0, 1, 2, 3], [*levels, level]
    return found


def _vector(schema: Any, values: NDArray[Any]) -> tuple[Any, Any]:
    """Return a vector of the narrowest integers that TFLite has for it, with its type."""
    largest = int(values.max(initial=0))
    for limit, dtype, name in ((255, "uint8", "Uint8"), (65535, "uint16", "Uint16"), (2**31 - 1, "int32", "Int32")):
        if largest <= limit:
            vector = getattr(schema, f"{name}VectorT")()
            vector.values = values.astype(dtype)
            return getattr(schema.SparseIndexVector, f"{name}Vector"), vector
    raise ValueError(f"an index of {largest} is too large for TFLite")
