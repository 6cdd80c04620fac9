"""Every bug with its public report: what is under test, which versions are said to be hit, and what goes wrong."""

from __future__ import annotations

from typing import Literal

from harness.api import RuntimeBug

Symptom = Literal["wrong", "refused", "crashed"]

_HERE = "harness_runtime_bugs"
_HOSTS = {
    "onnxruntime": "microsoft/onnxruntime", "onnx": "onnx/onnx", "onnxsim": "onnxsim/onnxsim",
    "openvino": "openvinotoolkit/openvino", "nncf": "openvinotoolkit/nncf", "litert": "google-ai-edge/LiteRT",
    "litert-torch": "google-ai-edge/litert-torch", "pytorch": "pytorch/pytorch",
    "torch-pruning": "VainF/Torch-Pruning", "tensorrt": "NVIDIA/TensorRT",
}  # fmt: skip
_PULLS = frozenset({"onnxruntime-22020", "onnxruntime-29192", "openvino-32918", "openvino-37900"})


def _url(name: str) -> str:
    project, _, number = name.rpartition("-")
    return f"https://github.com/{_HOSTS[project]}/{'pull' if name in _PULLS else 'issues'}/{number}"


def _bug(
    name: str, case: str, runtime: str, symptom: Symptom, hit: str, summary: str, *packages: str, extra: str = ""
) -> RuntimeBug:
    return RuntimeBug(
        name=name, summary=summary, url=_url(name), runtime=runtime, hit=hit, symptom=symptom,
        case=f"{_HERE}.{case}", packages=packages, extra=extra or runtime,
    )  # fmt: skip


_OPTIMIZER: tuple[tuple[str, str, Symptom, str, str], ...] = (
    ("onnxsim-749", "blocked_int4", "wrong", "1.29.0; no more than the kernel's 8-bit activations is counted as right",
     "blocks of 4-bit weights along axis 0 are mixed up by the fusion to MatMulNBits"),
    ("onnxruntime-28491", "no_zero_point", "wrong", "reported 2026-05, closed",
     "negative int8 constants without a zero point are dequantized to 0 when they are reshaped"),
    ("onnxruntime-29192", "transposed_no_zero_point", "refused", "mended for opset 21 by this pull request of 2026-06",
     "signed values dequantized without a zero point are taken for unsigned behind a Transpose"),
    ("onnxruntime-28551", "large_blocks", "wrong", "1.26.0",
     "MatMulNBits with blocks of 512 gives zeros"),
    ("onnxruntime-29849", "massive_activation", "wrong", "open; reported 2026-07",
     "MatMulNBits with accuracy_level=4 picks another token where one activation is massive"),
    ("onnxruntime-28448", "quantized_resize", "wrong", "reported 2026-05, closed",
     "a quantized linear Resize cuts fractions off instead of rounding"),
    ("onnxruntime-25932", "opset_23", "refused", "reported 2025-09, closed",
     "QuantizeLinear of opset 23 has no kernel"),
    ("onnxruntime-32719", "unlike_scale", "refused", "open; reported 2026-09",
     "QuantizeLinear of opset 23 with half floats and a float32 scale does not run"),
    ("onnxruntime-29727", "saturated_softmax", "wrong", "reported 2026-07, closed",
     "int8 QLinearSoftmax wraps a probability of 1 around to the smallest code"),
    ("onnxruntime-10514", "maximum_of_nans", "wrong", "1.10.0; open",
     "ReduceMax drops NaN where there are exactly three"),
    ("onnxruntime-32105", "shape_from_reshape", "refused", "1.28.0; open",
     "a Reshape whose shape comes from another Reshape is fused into one of the wrong type"),
    ("onnxruntime-32413", "times_folded_one", "refused", "1.23.2 and 1.29.0; open",
     "an Identity in front of a product with a folded 1 leaves an invalid graph"),
    ("onnxruntime-32414", "dropout_times_folded_one", "refused", "1.30.0; open",
     "the same behind a Dropout"),
    ("onnxruntime-32416", "cast_times_folded_one", "refused", "1.29.0 and 1.30.0; open",
     "the same behind a Cast to the same type"),
    ("onnxruntime-32421", "double_quick_gelu", "refused", "1.23.2 and 1.29.0",
     "x · sigmoid(1.702 x) in double precision is fused into an operator without a kernel for it"),
    ("onnx-8203", "norm_scaled_wider", "refused", "1.20.1",
     "a product that is wider than the normalized values is fused into the normalization"),
    ("onnxruntime-24711", "bias_of_another_scale", "wrong", "1.19.2; mended 2026",
     "a quantized Conv takes its bias in the products' scale, whatever scale it has"),
    ("onnxruntime-22177", "padded_average", "wrong", "1.19.2",
     "Pad fused into AveragePool: its zeros are no longer counted"),
    ("onnxruntime-16105", "saturating_pairs", "wrong", "1.18.0, on CPUs with AVX2 alone",
     "unsigned times signed bytes: sums of two products saturate at 16 bits"),
    ("onnxruntime-25001", "reshaped_integers", "refused", "reported 2025-06, closed",
     "DequantizeLinear of 32-bit integers moved over a Reshape leaves an invalid graph"),
    ("onnxruntime-26525", "reshaped_integers_no_zero_point", "wrong", "open; reported 2025-11",
     "32-bit integers dequantized without a zero point are clipped to bytes behind a Reshape"),
)  # fmt: skip

_TOOLS: tuple[tuple[str, str, Symptom, str, str], ...] = (
    ("onnxruntime-19694", "transposed_channels", "refused", "reported 2024-02, closed",
     "quantize_static by channel takes the wrong axis of a ConvTranspose"),
    ("onnxruntime-22020", "small_weights_large_bias", "wrong", "before 1.20.1",
     "quantize_static clips a bias that overflows 32 bits in the scale of tiny weights"),
    ("onnxruntime-19418", "shared_by_branches", "refused", "1.17.0",
     "quantize_dynamic fails where branches of If share an initializer of the outer graph"),
    ("onnxruntime-25489", "stacked_weights", "refused", "open; reported 2025-07",
     "quantize_dynamic by channel writes a stack of matrices that cannot be run"),
    ("onnxruntime-21346", "narrower_weights", "wrong", "reported 2024-07, closed",
     "quantize_static gives MatMul weights the activations' 16 bits instead of the 8 that were asked for"),
    ("onnxruntime-24815", "bias_of_one_row", "refused", "reported 2025-05, closed",
     "quantize_static by channel fails on a Gemm whose bias is a matrix of one row"),
)  # fmt: skip

_OPENVINO: tuple[tuple[str, str, str, str], ...] = (
    ("openvino-32918", "blocks_in_order", "mended by this pull request of 2025-11",
     "DequantizeLinear by blocks along axis 1 interleaves the blocks"),
    ("openvino-35647", "unsigned_sum", "2026.1.0; open", "uint8 Add saturates instead of wrapping around"),
    ("openvino-35646", "unsigned_product", "2026.1.0; open", "uint8 Mul saturates instead of wrapping around"),
    ("openvino-35651", "signed_sum", "2026.1.0; open", "int8 Add saturates instead of wrapping around"),
    ("openvino-35650", "signed_difference", "2026.1.0; open", "int8 Sub saturates instead of wrapping around"),
    ("openvino-35829", "large_remainder", "2026.1.0; open", "int64 Mod is computed in float32"),
    ("openvino-35830", "large_quotient", "2026.1.0; open", "int32 Div is computed in float32"),
    ("openvino-37766", "wide_quotient", "2026.1.0; open", "int64 Div is computed in 32 bits"),
    ("openvino-35838", "integer_power", "2026.1.0; open", "int64 Pow is computed in float32"),
    ("openvino-35896", "large_float_as_integer", "2026.1.0; open", "a cast of large floats to int64 ends at 32 bits"),
    ("openvino-35932", "not_a_number_as_truth", "2026.1.0; open", "a cast of NaN to bool is false"),
    ("openvino-38158", "halves_to_int4", "open; reported 2026-09",
     "a cast to int4 rounds halves away from zero instead of to even"),
    ("openvino-13491", "first_smallest", "2022.2; closed", "ArgMin of integers gives a wrong index"),
)  # fmt: skip

_OTHERS: tuple[RuntimeBug, ...] = (
    _bug("nncf-2553", "nncf_tool:original_kept", "nncf", "wrong", "2.8.1; by design",
         "compress_weights compresses the model that it was given too", "openvino", "onnx", extra="openvino"),
    _bug("nncf-4172", "nncf_tool:shared_by_identities", "nncf", "refused", "open; discussed 2026-08",
         "SmoothQuant fails on a matrix that two products share", "onnxruntime", "onnx", extra="openvino"),
    _bug("openvino-37900", "nncf_tool:blocked_embedding", "nncf", "refused", "reported 2026-09",
         "compress_weights declares another axis than the groups of 4-bit weights lie along", "onnx", extra="openvino"),
    _bug("litert-4847", "litert:wide_stride", "ai-edge-litert", "wrong", "reported 2025-12, closed",
         "CONV_2D with a stride of 10 and padding 'same' gives zeros", "flatbuffers", extra="tflite"),
    _bug("onnxsim-1436", "litert:transposed_product", "ai-edge-litert", "wrong", "2.2.0",
         "XNNPACK multiplies by the transpose where BATCH_MATMUL follows TRANSPOSE", "flatbuffers", extra="tflite"),
    _bug("litert-torch-1238", "litert:strided_constant", "litert-torch", "wrong", "0.9.x; open",
         "a constant that is no contiguous tensor is converted in memory order", "ai-edge-litert", "torch",
         extra="tflite-convert"),
    _bug("litert-torch-28", "litert:norm_behind_transposed_convolution", "litert-torch", "wrong",
         "reported 2024-06, closed", "a batch norm behind a transposed convolution without bias is folded wrongly",
         "ai-edge-litert", "torch", extra="tflite-convert"),
    _bug("pytorch-76390", "torch_cpu:saturating_pairs", "torch", "wrong", "on CPUs without VNNI",
         "quantized conv1d: sums of two products saturate at 16 bits"),
    _bug("pytorch-37343", "torch_cpu:rounded_sum", "torch", "wrong", "open; reported 2020-04",
         "quantized add on QNNPACK rounds to the farther code"),
    _bug("pytorch-107030", "torch_cpu:vector_and_remainder", "torch", "wrong", "reported 2023-08, closed",
         "quantized sigmoid rounds vectors and their remainder differently"),
    _bug("pytorch-77511", "torch_cpu:wide_average", "torch", "crashed", "1.11.0",
         "quantized avg_pool1d on QNNPACK ends the process where the window is wider than the input"),
    _bug("torch-pruning-146", "torch_cpu:doubled_channels", "torch-pruning", "refused", "open; reported 2023-04",
         "a pruned net with channels concatenated with themselves does not run", "torch", extra="torch"),
    _bug("torch-pruning-481", "torch_cpu:joined_branches", "torch-pruning", "wrong", "open; reported 2025-04",
         "branches that are concatenated are pruned as one group", "torch", extra="torch"),
    _bug("tensorrt-3462", "trt:scattered_slices", "tensorrt-cu13", "wrong", "8.6.1",
         "ScatterND of slices gives other values", "onnx", "cuda-python", extra="tensorrt"),
    _bug("tensorrt-1840", "trt:quantized_transposed_bias", "tensorrt-cu13", "wrong", "8.2.1.8",
         "an int8 ConvTranspose of one dimension with a bias gives other values", "onnx", "cuda-python",
         extra="tensorrt"),
    _bug("tensorrt-763", "trt:empty_slice", "tensorrt-cu13", "refused", "reported by 2021, closed",
         "a Slice without elements is refused", "onnx", "cuda-python", extra="tensorrt"),
)  # fmt: skip

BUGS: tuple[RuntimeBug, ...] = (
    *(_bug(name, f"ort:{case}", "onnxruntime", how, hit, told, "onnx") for name, case, how, hit, told in _OPTIMIZER),
    *(_bug(name, f"ort_tools:{case}", "onnxruntime", how, hit, told, "onnx") for name, case, how, hit, told in _TOOLS),
    *(_bug(name, f"ov:{case}", "openvino", "wrong", hit, told, "onnx") for name, case, hit, told in _OPENVINO),
    *_OTHERS,
)
