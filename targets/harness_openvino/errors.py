"""What OpenVINO's own texts mean, in the words of the user's model."""

from __future__ import annotations

from harness.api import KnownError

_INSPECT = "'harness inspect' shows the file operator by operator"

KNOWN_ERRORS = (
    KnownError(
        r"No conversion rule found for operations: (?P<ops>[^\n]+)",
        "it cannot read these operators: {ops}",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"(?s)-- (?P<op>[\w.]+)-\d+ with a message:.*?(?:ONNX node '<Node\(\w+\): (?P<array>[^>]*)>')"
        r".*?with friendly_name '[^']*':\n(?P<why>[^\n]+)",
        "it cannot read the operator {op} that gives {array!r}: {why}",
        _INSPECT,
    ),
    KnownError(
        r"(?s)-- (?P<op>[\w.]+)-\d+ with a message:\s*(?P<why>[^\n]+)",
        "it cannot read an operator {op}: {why}",
        _INSPECT,
    ),
    KnownError(
        r"Conversion is failed for: (?P<ops>[^\n]+)", "it cannot read the operators {ops} of this model", _INSPECT
    ),
    KnownError(
        r"doesn't support (?P<op>\w+) operation with dynamic rank\. Operation name: (?P<node>\S+)",
        "its CPU plugin does not run the operator {node!r} ({op}), whose number of dimensions is not known beforehand",
        "give its shape in the file, or run it on another target",
        "not-applicable",
    ),
    KnownError(
        r"Cannot get length of dynamic dimension",
        "it needs a size that this model leaves free",
        "give the sizes in the file, or run it on another target",
    ),
    KnownError(
        r"m_element_type\.is_static\(\)",
        "it finds no dtype for an array that an operator gives",
        _INSPECT,
        "not-applicable",
    ),
    KnownError(
        r"Input tensor isn't found for node \"(?P<array>[^\"]*)\"",
        "the file is not valid: nothing in it gives {array!r}, which an operator takes",
        _INSPECT,
    ),
    KnownError(
        r"supportedPrecisions\.count\(precision\)|does not support f64",
        "its CPU plugin has no kernel for a dtype that this model computes in, such as float64",
        "store the model in float32",
        "not-applicable",
    ),
    KnownError(
        r"(?s)\[CPU\] (?P<op>\w+) node with name '(?P<node>[^']*)'\s*(?:Check '[^']*' failed[^\n]*)?\n(?P<why>[^\n]+)",
        "the operator {node!r} ({op}) cannot run on these inputs: {why}",
        "do the shapes of the data fit the model?",
    ),
    KnownError(
        r"\[CPU\] (?P<op>\w+) node with name '(?P<node>[^']*)'\s*(?P<why>[^\n]*)",
        "the operator {node!r} ({op}) cannot run: {why}",
    ),
    KnownError(
        r"Can't set the input tensor with (?:index|name): (?P<at>\w+), because the model input "
        r"\(shape=(?P<due>\S+?)\) and the tensor \(shape=\((?P<found>[^)]*)\)\) are incompatible",
        "the input {at} is given in shape [{found}], it takes {due}",
        "do the shapes of the data fit the model?",
    ),
    KnownError(
        r"could not broadcast input array from shape (?P<found>\([^)]*\)) into shape (?P<due>\([^)]*\))",
        "an input is given in shape {found}, it takes {due}",
        "do the shapes of the data fit the model?",
    ),
    KnownError(
        r"Port for tensor name (?P<array>.+) was not found",
        "it has no input or output {array!r}",
        "name the arrays as the model's inputs are named",
    ),
    KnownError(
        r"Unable to read the model|Model file .* cannot be opened|Cannot recognize input model",
        "the file is not a model that it reads",
        "was it downloaded or copied to its end?",
    ),
)
