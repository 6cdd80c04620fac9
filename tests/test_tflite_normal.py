"""Foreign .tflite files: their normal form computes what they compute, and what runs is read from what was written."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest

from harness.api import Artifact, Job, Model, Options, Precision, Split, TensorSpec, Unsupported

if any(importlib.util.find_spec(name) is None for name in ("ai_edge_litert", "ai_edge_quantizer")):
    pytest.skip("ai-edge-litert or ai-edge-quantizer is not installed", allow_module_level=True)

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_files import Writer

import harness_tflite
from harness_tflite import flatbuffer, normal, tails
from harness_tflite.normal import normal_form
from harness_tflite.params import Params

STATIC = Precision("int8", "int8", "static")
DYNAMIC = Precision("int8", "int8", "dynamic")
WEIGHT_ONLY = Precision("int8", scheme="weight-only")
HALF = Precision("float16", "float16")
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((24, 8, 8, 3)).astype(np.float32)
_CONV = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def folded(path: Path, *, dtype: str = "float16", last: str = "", apart: float = 1.0) -> Path:
    """Write x [1, 8, 8, 3] -> y: two 3x3 convolutions whose weights lie behind DEQUANTIZE, as old converters did it.

    Args:
        path: Where to.
        dtype: Of the stored weights; "float32" has no DEQUANTIZE.
        last: "join" concatenates the second convolution's result with its sigmoid, ``apart`` times as large.
        apart: Scale of the second convolution's weights.
    """
    to, chance = Writer(), np.random.default_rng(1)

    def weights(name: str, shape: tuple[int, ...], scale: float) -> int:
        values = (chance.standard_normal(shape) * scale).astype(dtype)
        if dtype == "float32":
            return to.tensor(name, shape, values)
        stored = to.tensor(name, shape, values)
        return to.op("DEQUANTIZE", [stored], to.tensor(f"{name}_dequantize", shape), "DequantizeOptions")

    x = to.tensor("x", (1, 8, 8, 3))
    here = to.op("CONV_2D", [x, weights("first", (16, 3, 3, 3), 0.2), weights("b0", (16,), 0.1)],
                 to.tensor("a", (1, 8, 8, 16)), "Conv2DOptions", fusedActivationFunction=1, **_CONV)  # fmt: skip
    here = to.op("CONV_2D", [here, weights("second", (4, 3, 3, 16), 0.1 * apart), weights("b1", (4,), 0.1)],
                 to.tensor("c", (1, 8, 8, 4)), "Conv2DOptions", fusedActivationFunction=0, **_CONV)  # fmt: skip
    if last == "join":
        score = to.op("CONV_2D", [to.graph.operators[0 if dtype == "float32" else 2].outputs[0],
                                  weights("third", (4, 3, 3, 16), 0.1), weights("b2", (4,), 0.1)],
                      to.tensor("s", (1, 8, 8, 4)), "Conv2DOptions", fusedActivationFunction=0, **_CONV)  # fmt: skip
        score = to.op("LOGISTIC", [score], to.tensor("p", (1, 8, 8, 4)))
        here = to.op("CONCATENATION", [here, score], to.tensor("y", (1, 8, 8, 8)), "ConcatenationOptions",
                     axis=3, fusedActivationFunction=0)  # fmt: skip
    return to.write(path, [x], [here])


def model_of(path: Path) -> Model:
    interpreter = Interpreter(str(path))
    (entry,) = interpreter.get_input_details()
    outputs = tuple(item["name"] for item in interpreter.get_output_details())
    spec = TensorSpec(np.dtype(entry["dtype"]).name, tuple(int(size) for size in entry["shape"]))
    return Model("tflite", path, {entry["name"]: spec}, outputs)


class Data:
    """Calibration items."""

    def split(self, name: str) -> Split:
        del name
        return Split({"x": IMAGES})


def lowered(path: Path, precision: Precision, out: Path) -> Artifact:
    out.mkdir(parents=True, exist_ok=True)
    given = model_of(path)
    model = Model("tflite", path, given.inputs, given.outputs, precision=precision)
    job = Job(out, 0, 1, Data(), None, lambda share, words: None, logging.getLogger("harness"))  # type: ignore[arg-type]
    return harness_tflite.lower(model, Params(), Options(), job)


def run(path: Path, image: np.ndarray, *, reference: bool = True) -> np.ndarray:
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def sqnr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    noise = float(((wanted.astype(np.float64) - found) ** 2).sum())
    return float(10 * np.log10((wanted.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def test_float16_weights_are_unfolded_and_keep_their_names(tmp_path: Path) -> None:
    source = folded(tmp_path / "half.tflite")
    path, why = normal_form(source, tmp_path / "normal.tflite")
    assert not why
    assert {node.op for node in flatbuffer.nodes(flatbuffer.open_model(path))} == {"CONV_2D"}
    assert {span.dtype for span in flatbuffer.weight_spans(path)} == {"float32"}
    assert {"first", "second"} <= set(flatbuffer.tensor_names(flatbuffer.open_model(path)))
    np.testing.assert_array_equal(run(path, IMAGES[:1]), run(source, IMAGES[:1]))


def test_old_operator_codes_are_carried_over(tmp_path: Path) -> None:
    source = folded(tmp_path / "m.tflite", dtype="float32")
    model = schema.ModelT.InitFromObj(flatbuffer.open_model(source))
    for code in model.operatorCodes:
        code.builtinCode = 0  # as files older than schema 3a have it
    source.write_bytes(flatbuffer.pack(model))
    path, _ = normal_form(source, tmp_path / "normal.tflite")
    codes = schema.ModelT.InitFromObj(flatbuffer.open_model(path)).operatorCodes
    assert [code.builtinCode for code in codes] == [schema.BuiltinOperator.CONV_2D]
    np.testing.assert_array_equal(run(path, IMAGES[:1]), run(source, IMAGES[:1]))


def test_a_file_in_normal_form_is_left_alone(tmp_path: Path) -> None:
    path, _ = normal_form(folded(tmp_path / "half.tflite"), tmp_path / "normal.tflite")
    again, why = normal_form(path, tmp_path / "again.tflite")
    assert (again, why) == (path, "")


def test_tensors_get_names_that_differ(tmp_path: Path) -> None:
    source = folded(tmp_path / "m.tflite", dtype="float32")
    model = schema.ModelT.InitFromObj(flatbuffer.open_model(source))
    for tensor in model.subgraphs[0].tensors[1:]:
        tensor.name = b"same"
    source.write_bytes(flatbuffer.pack(model))
    path, _ = normal_form(source, tmp_path / "normal.tflite")
    names = flatbuffer.tensor_names(flatbuffer.open_model(path))
    assert len(set(names)) == len(names)
    artifact = lowered(source, STATIC, tmp_path / "out")
    assert sqnr_db(run(source, IMAGES[:1]), run(artifact.path, IMAGES[:1], reference=False)) > 30


def test_a_normal_form_with_other_outputs_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = normal._made
    monkeypatch.setattr(normal, "_made", lambda *given: {key: value * 1.01 for key, value in honest(*given).items()})
    source = folded(tmp_path / "half.tflite")
    path, why = normal_form(source, tmp_path / "normal.tflite")
    assert "differs" in why
    assert {"DEQUANTIZE", "CONV_2D"} == {node.op for node in flatbuffer.nodes(flatbuffer.open_model(path))}
    np.testing.assert_array_equal(run(path, IMAGES[:1]), run(source, IMAGES[:1]))
    with pytest.raises(Unsupported, match="nothing to quantize"):  # the quantizer sees no weights behind DEQUANTIZE
        lowered(source, WEIGHT_ONLY, tmp_path / "out")


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC, WEIGHT_ONLY], ids=lambda item: item.name)
def test_files_with_float16_weights_are_quantized(precision: Precision, tmp_path: Path) -> None:
    source = folded(tmp_path / "half.tflite")
    artifact = lowered(source, precision, tmp_path / "out")
    assert artifact.weight_bytes["int8"] >= 16 * 27 + 4 * 144
    assert "float16" not in artifact.weight_bytes
    found = [sqnr_db(run(source, image), run(artifact.path, image, reference=False)) for image in np.split(IMAGES, 24)]
    assert min(found) > 28


def test_float16_of_a_file_that_has_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="float16 already; baseline runs"):
        lowered(folded(tmp_path / "half.tflite"), HALF, tmp_path / "out")
    artifact = lowered(folded(tmp_path / "full.tflite", dtype="float32"), HALF, tmp_path / "other")
    assert artifact.weight_bytes["float16"] >= 2 * (16 * 27 + 4 * 144)


def test_weights_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    source = folded(tmp_path / "full.tflite", dtype="float32")
    model = schema.ModelT.InitFromObj(flatbuffer.open_model(source))
    (tensor,) = [item for item in model.subgraphs[0].tensors if item.name == b"second"]
    data = np.array(model.buffers[tensor.buffer].data, np.uint8)
    data[:4] = np.array([np.nan], np.float32).view(np.uint8)
    model.buffers[tensor.buffer].data = data
    source.write_bytes(flatbuffer.pack(model))
    with pytest.raises(Unsupported, match=r"weight 'second' holds NaN \(1 of its 576 values\)"):
        lowered(source, STATIC, tmp_path / "out")


def test_parts_of_unlike_size_survive_a_last_concatenation(tmp_path: Path) -> None:
    """With one scale for boxes of thousands and scores below 1, every score would be 0."""
    source = folded(tmp_path / "m.tflite", dtype="float32", last="join", apart=1e4)
    artifact = lowered(source, STATIC, tmp_path / "out")
    wanted, found = run(source, IMAGES[:1]), run(artifact.path, IMAGES[:1], reference=False)
    assert sqnr_db(wanted[..., 4:], found[..., 4:]) > 25
    assert sqnr_db(wanted[..., :4], found[..., :4]) > 25


def test_what_static_int8_loses_is_flagged_with_the_layer(tmp_path: Path) -> None:
    """One channel in the middle is 3000 times as large as the others, and the next layer does not read it."""
    source = folded(tmp_path / "m.tflite", dtype="float32")
    model = schema.ModelT.InitFromObj(flatbuffer.open_model(source))
    for name, change in ((b"first", _swell), (b"second", _ignore)):
        (tensor,) = [item for item in model.subgraphs[0].tensors if item.name == name]
        values = np.array(model.buffers[tensor.buffer].data, np.uint8).view(np.float32).reshape(tensor.shape)
        model.buffers[tensor.buffer].data = change(values).reshape(-1).view(np.uint8)
    source.write_bytes(flatbuffer.pack(model))
    artifact = lowered(source, STATIC, tmp_path / "out")
    assert sqnr_db(run(source, IMAGES[:1]), run(artifact.path, IMAGES[:1], reference=False)) < 20
    assert [flag for flag in artifact.flags if flag.startswith("under_20_db_from:")]
    assert "keeps" in artifact.how
    assert not lowered(folded(tmp_path / "plain.tflite"), STATIC, tmp_path / "plain").flags


def _swell(values: np.ndarray) -> np.ndarray:
    values[0] *= 3000
    return values


def _ignore(values: np.ndarray) -> np.ndarray:
    values[..., 0] = 0
    return values


def masked(path: Path, mask: float) -> Path:
    """Write x [1, 8, 16] -> y: one head of causal attention over a projection, its mask added as the converter does."""
    to, chance = Writer(), np.random.default_rng(2)
    shape, square = (1, 8, 16), (1, 8, 8)
    x = to.tensor("x", shape)
    first, last = (
        to.tensor(name, (16, 16), (chance.standard_normal((16, 16)) / 4).astype(np.float32)) for name in ("wq", "wo")
    )
    kept = {"options": "FullyConnectedOptions", "keepNumDims": True}
    query = to.op("FULLY_CONNECTED", [x, first, -1], to.tensor("q", shape), **kept)
    scores = to.op("BATCH_MATMUL", [query, x], to.tensor("scores", square), "BatchMatMulOptions", adjY=True)
    hidden = np.triu(np.full((1, 8, 8), mask, np.float32), 1)
    seen = to.op("ADD", [scores, to.tensor("mask", square, hidden)], to.tensor("masked", square), "AddOptions")
    share = to.op("SOFTMAX", [seen], to.tensor("share", square), "SoftmaxOptions", beta=1.0)
    out = to.op("BATCH_MATMUL", [share, x], to.tensor("mixed", shape), "BatchMatMulOptions")
    y = to.op("FULLY_CONNECTED", [out, last, -1], to.tensor("y", shape), **kept)
    return to.write(path, [x], [y])


@pytest.mark.parametrize("mask", [-np.inf, float(np.finfo(np.float32).min), -1e9], ids=["inf", "least", "1e9"])
def test_a_causal_mask_still_masks_in_int8(mask: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = RANDOM.standard_normal((24, 8, 16)).astype(np.float32)
    monkeypatch.setattr(Data, "split", lambda self, name: Split({"x": items}))
    source = masked(tmp_path / "m.tflite", mask)
    artifact = lowered(source, STATIC, tmp_path / "out")
    wanted, found = run(source, items[:1]), run(artifact.path, items[:1], reference=False)
    assert sqnr_db(wanted, found) > 20
    later = items[:1].copy()
    later[:, 4:] = 0  # the first four steps see nothing of these
    np.testing.assert_array_equal(found[:, :4], run(artifact.path, later, reference=False)[:, :4])


def test_a_written_out_layer_norm_stays_float() -> None:
    node = flatbuffer.Node
    nodes = (
        node("FULLY_CONNECTED", (0, 1), (2,)),
        node("MEAN", (2, 3), (4,)),
        node("SQUARED_DIFFERENCE", (2, 4), (5,)),
        node("MEAN", (5, 3), (6,)),
        node("ADD", (6, 7), (8,)),
        node("RSQRT", (8,), (9,)),
        node("SUB", (2, 4), (10,)),
        node("MUL", (10, 9), (11,)),
        node("ADD", (11, 12), (13,)),
        node("FULLY_CONNECTED", (13, 14), (15,)),
        node("ADD", (15, 2), (16,)),
    )
    kept = {index for item in tails.normalizations(nodes) for index in item.outputs}
    assert kept == {4, 5, 6, 8, 9, 10, 11, 13}


def test_sparse_weights_are_unpacked_by_the_runtime(tmp_path: Path) -> None:
    """As MediaPipe stores them: sparse float16 constants behind DENSIFY and DEQUANTIZE."""
    dense = folded(tmp_path / "half.tflite")
    model = schema.ModelT.InitFromObj(flatbuffer.open_model(dense))
    graph = model.subgraphs[0]
    (index,) = [place for place, tensor in enumerate(graph.tensors) if tensor.name == b"second"]
    constant, made = graph.tensors[index], schema.TensorT()
    values = np.array(model.buffers[constant.buffer].data, np.uint8).view(np.float16).reshape(4, -1)
    values[:, ::2] = 0
    made.name, made.shape, made.type, made.buffer = b"second_dense", constant.shape, constant.type, 0
    graph.tensors.append(made)
    sparsity = schema.SparsityParametersT()
    levels = [schema.DimensionMetadataT() for _ in range(4)]
    for level, size in zip(levels[:3], constant.shape[:3], strict=True):
        level.format, level.denseSize = schema.DimensionType.DENSE, int(size)
    rows = values.reshape(-1, int(constant.shape[3]))
    levels[3].format = schema.DimensionType.SPARSE_CSR
    levels[3].arraySegmentsType, levels[3].arraySegments = _integers(np.cumsum([0, *(rows != 0).sum(1)]))
    levels[3].arrayIndicesType, levels[3].arrayIndices = _integers(np.nonzero(rows)[1])
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1, 2, 3], levels
    constant.sparsity = sparsity
    model.buffers[constant.buffer].data = rows[rows != 0].view(np.uint8)
    kind = schema.OperatorCodeT()
    kind.builtinCode = kind.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    kind.version = 1
    model.operatorCodes.append(kind)
    unpack = schema.OperatorT()
    unpack.opcodeIndex, unpack.inputs, unpack.outputs = len(model.operatorCodes) - 1, [index], [len(graph.tensors) - 1]
    unpack.builtinOptionsType, unpack.builtinOptions = schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT()
    for operator in graph.operators:
        operator.inputs = [len(graph.tensors) - 1 if item == index else item for item in operator.inputs]
    graph.operators = [unpack, *graph.operators]
    source = tmp_path / "sparse.tflite"
    source.write_bytes(flatbuffer.pack(model))
    path, why = normal_form(source, tmp_path / "normal.tflite")
    assert not why
    assert {node.op for node in flatbuffer.nodes(flatbuffer.open_model(path))} == {"CONV_2D"}
    found = dict(flatbuffer.constant_bytes(path))["second"]
    np.testing.assert_array_equal(np.frombuffer(found, np.float32).reshape(4, -1), values.astype(np.float32))
    np.testing.assert_array_equal(run(path, IMAGES[:1]), run(source, IMAGES[:1]))


def _integers(values: np.ndarray) -> tuple[int, object]:
    vector = schema.Uint16VectorT()
    vector.values = values.astype(np.uint16)
    return schema.SparseIndexVector.Uint16Vector, vector


def recurrent(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write h' = tanh(A x + B h), y = C h', whose state is an output that the last layer reads, and return weights."""
    to, chance = Writer(), np.random.default_rng(2)
    shapes = {"A": (16, 8), "B": (16, 16), "C": (4, 16)}
    weights = {name: (0.4 * chance.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    x, h = to.tensor("x", (1, 8)), to.tensor("h", (1, 16))

    def layer(source: int, name: str) -> int:
        weight = to.tensor(name, shapes[name], weights[name])
        result = to.tensor(f"{name}x", (1, shapes[name][0]))
        return to.op("FULLY_CONNECTED", [source, weight, -1], result, "FullyConnectedOptions")

    total = to.op("ADD", [layer(x, "A"), layer(h, "B")], to.tensor("sum", (1, 16)), "AddOptions")
    state = to.op("TANH", [total], to.tensor("hn", (1, 16)))
    return to.write(path, [x, h], [layer(state, "C"), state]), weights


def test_a_state_that_the_graph_reads_again_is_quantized_over_its_own_range(tmp_path: Path) -> None:
    path, weights = recurrent(tmp_path / "m.tflite")
    (tmp_path / "out").mkdir()
    inputs = {"x": TensorSpec("float32", (1, 8)), "h": TensorSpec("float32", (1, 16), "state", None, "hn")}
    model = Model("tflite", path, inputs, ("Cx", "hn"), precision=STATIC)
    items = np.random.default_rng(3).standard_normal((40, 8)).astype(np.float32)
    data = type("Data", (), {"split": lambda _self, _name: Split({"x": items, "h": np.zeros((1, 16), np.float32)})})()
    job = Job(tmp_path / "out", 0, 1, data, None, lambda share, words: None, logging.getLogger("harness"))  # type: ignore[arg-type]
    made = harness_tflite.lower(model, Params(), Options(), job)
    assert sum(node.op == "FULLY_CONNECTED" for node in flatbuffer.nodes(flatbuffer.open_model(made.path))) == 3
    assert made.weight_bytes["int8"] == sum(weight.size for weight in weights.values())
    session = harness_tflite.open_session(made, Params(), Options(), "accuracy")
    state, wanted, found = np.zeros((1, 16), np.float32), [], []
    held = state
    for item in items:
        held = np.tanh(item[None] @ weights["A"].T + held @ weights["B"].T)
        wanted.append(held @ weights["C"].T)
        result = session.run({"x": item[None], "h": state})
        state = result["hn"]
        found.append(result["Cx"])
    assert sqnr_db(np.concatenate(wanted), np.concatenate(found)) > 20
