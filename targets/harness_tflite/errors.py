"""What LiteRT's own texts mean, in the words of the user's model."""

from __future__ import annotations

from harness.api import KnownError

_INSPECT = "'harness inspect' shows the file operator by operator"

KNOWN_ERRORS = (
    KnownError(
        r"(?s)Encountered unresolved custom op: (?P<op>[^\n.]+)\..*?Node number (?P<place>\d+)",
        "it has no kernel for the custom operator {op} (operator {place} of the file)",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"Select TensorFlow op\(s\), included in the given model, is\(are\) not supported",
        "the file holds operators of TensorFlow itself (Flex), which LiteRT does not run",
        "convert it again with TFLITE_BUILTINS alone",
        "not-applicable",
    ),
    KnownError(
        r"Didn't find op for builtin opcode '(?P<op>\w+)' version '(?P<version>\d+)'",
        "it has no kernel for the operator {op} in version {version}",
        "install a newer ai-edge-litert",
        "not-applicable",
    ),
    KnownError(
        r"Op builtin_code out of range: (?P<code>\d+)",
        "the file holds an operator that this version does not know (number {code})",
        "install a newer ai-edge-litert",
        "not-applicable",
    ),
    KnownError(
        r"(?P<why>[^\n]*?)Node number (?P<place>\d+) \((?P<op>[^)]+)\) failed to prepare",
        "operator {place} of the file ({op}) cannot be prepared for these shapes: {why}",
        "does the file take another batch or shape than it was made for?",
    ),
    KnownError(
        r"(?P<why>[^\n]*?)Node number (?P<place>\d+) \((?P<op>[^)]+)\) failed to invoke",
        "operator {place} of the file ({op}) cannot run on these inputs: {why}",
        "do the data fit the model?",
    ),
    KnownError(
        r"(?P<why>[^.]*)\.Tensor (?P<place>\d+) has invalid quantization parameters",
        "the file is not valid: the scales of tensor {place} do not fit its shape ({why})",
        _INSPECT,
    ),
    KnownError(
        r"not a valid Flatbuffer buffer|Model provided has model identifier",
        "the file is not a whole .tflite model",
        "was it downloaded or copied to its end?",
    ),
    KnownError(
        r"Got value of type (?P<found>\w+) but expected type (?P<due>\w+) for input \d+, name: (?P<array>\S+)",
        "the input {array!r} is given as {found}, it takes {due}",
        "store the data in the dtype that the model takes",
    ),
    KnownError(
        r"Dimension mismatch\. Got (?P<found>\d+) but expected (?P<due>\d+) for dimension (?P<axis>\d+) of input "
        r"(?P<array>\d+)",
        "input {array} is given with {found} along dimension {axis}, it takes {due}",
        "do the shapes of the data fit the model?",
    ),
)
