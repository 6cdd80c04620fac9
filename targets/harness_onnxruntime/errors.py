"""What ONNX Runtime's own texts mean, in the words of the user's model."""

from __future__ import annotations

from harness.api import KnownError

_NODE = r"(?P<node>[^()'\"]+?)(?:_quant|_quantized|_QuantizeLinear|_DequantizeLinear|_Q4|_Q8)*"
_INSPECT = "'harness inspect' shows the file operator by operator"

KNOWN_ERRORS = (
    KnownError(
        r"Fatal error: (?P<op>[\w.:]+)\(-?\d*\) is not a registered function/op",
        "it has no kernel for the operator {op}, which is not a standard ONNX one",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"Error No Op registered for (?P<op>\w+) with domain_version of (?P<opset>\d+)",
        "it knows no operator {op} in opset {opset}",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        rf"Could not find an implementation for (?P<op>\w+)\((?P<version>\d+)\) node with name '{_NODE}'",
        "it has no kernel for the operator {node!r} ({op}, version {version}) in the dtypes that it has here",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"Could not find an implementation for (?P<op>\w+)\((?P<version>\d+)\)",
        "it has no kernel for an operator {op} (version {version}) in the dtypes that it has here",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"Opset (?P<opset>\d+) is under development.* is till opset (?P<last>\d+)",
        "the model is of opset {opset}, this version of ONNX Runtime reads up to {last}",
        "convert it, or install a newer onnxruntime",
        "not-applicable",
    ),
    KnownError(
        r"Unsupported model IR version: (?P<found>\d+), max supported IR version: (?P<last>\d+)",
        "the file is of IR version {found}, this version of ONNX Runtime reads up to {last}",
        "save it with an older onnx, or install a newer onnxruntime",
        "not-applicable",
    ),
    KnownError(
        rf"Node \({_NODE}\) Op \((?P<op>\w+)\) \[(?:Shape|Type)InferenceError\] (?P<why>.+)",
        "the shapes of the operator {node!r} ({op}) do not fit together: {why}",
        _INSPECT,
    ),
    KnownError(
        r"\[(?:Shape|Type)InferenceError\] (?P<why>.+)", "the shapes in the model do not fit together: {why}", _INSPECT
    ),
    KnownError(
        r"Type Error: Type parameter \(\w+\) of Optype \((?P<op>\w+)\) bound to different types "
        rf"\(tensor\((?P<one>\w+)\) and tensor\((?P<two>\w+)\) in node \({_NODE}\)",
        "the operator {node!r} ({op}) is given {one} and {two}, which have to be of one dtype",
        _INSPECT,
    ),
    KnownError(
        rf"Type Error: Type 'tensor\((?P<one>\w+)\)' of input parameter \((?P<array>[^)]*)\) of operator "
        rf"\((?P<op>\w+)\) in node \({_NODE}\) is invalid",
        "the operator {node!r} ({op}) does not take {array!r} of dtype {one}",
        _INSPECT,
    ),
    KnownError(
        rf"Type Error: .*\(tensor\((?P<one>\w+)\)\) of output arg \((?P<array>[^)]*)\) of node \({_NODE}\)",
        "the operator {node!r} gives {array!r} of another dtype than the file declares ({one})",
        _INSPECT,
    ),
    KnownError(
        r"Node input '(?P<array>[^']*)' is not a graph input, initializer, or output",
        "the file is not valid: nothing in it gives {array!r}, which an operator takes",
        _INSPECT,
    ),
    KnownError(
        r"Duplicate definition of name \((?P<array>[^)]*)\)",
        "the file is not valid: {array!r} is given twice",
        _INSPECT,
    ),
    KnownError(
        r"two nodes with same node name \((?P<node>[^)]*)\)",
        "the file is not valid: two operators are called {node!r}",
        _INSPECT,
    ),
    KnownError(
        r"(?:GetFileLength|External data|external data file|model_path must not be empty|Data of TensorProto).*",
        "weights that the file keeps in another file cannot be read there",
        "keep the files of external data beside the model",
    ),
    KnownError(
        r"exceeds maximum protobuf size of 2GB|exceeded maximum protobuf size of 2GB",
        "the model is larger than the 2 GB that one ONNX file can hold",
        "save it with external data",
    ),
    KnownError(
        r"Non-zero status code returned while running (?P<op>QLinear\w+|\w+Integer|DynamicQuantize\w+|QGemm) node\. "
        rf"Name:'{_NODE}' Status Message: (?:.* was false\. )?(?P<why>[^\n]+)",
        "the quantized kernel {op} does not take the operator {node!r} as it was quantized: {why}",
        "leave that operator in float, or take another method",
    ),
    KnownError(
        rf"Non-zero status code returned while running (?P<op>\w+) node\. Name:'{_NODE}' Status Message: (?P<where>.*?)"
        r"(?P<why>[^.\n]*(?:indices element out of data bounds|out of bounds)[^\n]*)",
        "the operator {node!r} ({op}) was given an index that is not there: {why}",
        "do the data fit the model, such as its vocabulary?",
    ),
    KnownError(
        rf"Non-zero status code returned while running (?P<op>\w+) node\. Name:'{_NODE}' Status Message: "
        r"(?:.* was false\. )?(?P<why>[^\n]+)",
        "the operator {node!r} ({op}) cannot run on these inputs: {why}",
        "do the shapes of the data fit the model?",
    ),
    KnownError(
        r"Unexpected input data type\. Actual: \(tensor\((?P<found>\w+)\)\) , expected: \(tensor\((?P<due>\w+)\)\)",
        "an input is given as {found}, it takes {due}",
        "store the data in the dtype that the model takes",
    ),
    KnownError(
        r"(?:Got invalid dimensions|Invalid rank) for input: (?P<array>\S+) (?P<why>.+?) Please fix",
        "the input {array!r} is given in another shape than it takes: {why}",
        "do the shapes of the data fit the model?",
    ),
    KnownError(
        r"Required inputs \(\[(?P<arrays>[^\]]*)\]\) are missing from input feed",
        "the data lack the inputs {arrays}",
        "name the arrays as the model's inputs are named",
    ),
    KnownError(
        r"Unable to load .*|Protobuf parsing failed",
        "the file is not a whole ONNX model",
        "was it downloaded or copied to its end?",
    ),
    KnownError(
        r"scale issue|quantize_data.*(?:nan|NaN)|min_val.*nan",
        "the weights or the calibration hold NaN or infinity, so no scale can be found",
        "replace them in the model, or choose fp16 or weight-only where it works",
    ),
    KnownError(
        r"Graph is not a DAG",
        "ONNX Runtime's quantizer finds no order for the operators that it changed",
        "an output that is also an input, or given twice, may be the cause",
    ),
)
