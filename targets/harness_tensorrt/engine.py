"""From an ONNX file to a plan: strongly typed, so that precision is what the file says and nothing else."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import HarnessError, Unsupported

if TYPE_CHECKING:
    from harness_tensorrt.flavors import Params


_SPARSE = re.compile(r"\(Sparsity\) (Found|Chose) (\d+)")


def make_logger(trt: Any, log: logging.Logger) -> Any:
    """Return the library's logger that passes on to ours and keeps errors: failed builds return None and log why."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is only known at run time
        """Keep errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.sparse: dict[str, int] = {}  # layers that the builder "Found" eligible for 2:4 kernels, and "Chose"

        def log(self, severity: Any, message: str) -> None:
            """Take one message."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            told = _SPARSE.search(message)
            if told:
                self.sparse[told[1]] = int(told[2])
            log.debug("%s", message)

    return Logger()


def why(logger: Any) -> str:
    """Return the last error in one line."""
    return " ".join(logger.errors[-1].split()) if logger.errors else "no reason was logged"


def parse(trt: Any, logger: Any, onnx: Path) -> tuple[Any, Any, Any]:
    """Return builder, network and parser of an ONNX file; the parser must outlive the network.

    Raises:
        HarnessError: The builder cannot start, as without a GPU.
        Unsupported: The parser refuses the file; the message names node and reason.
    """
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the bindings raise for a null pointer; the log has the reason
        raise HarnessError(f"the builder cannot start: {why(logger)}") from error
    # Ignored since 11, where networks are always strongly typed; needed in 10.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(f"{error.node_name() or 'graph'}: {error.desc()}" for error in found)
        raise Unsupported(f"the ONNX parser refuses {onnx.name}: {' '.join(reasons.split())}")
    return builder, network, parser


def configure(
    trt: Any, builder: Any, network: Any, params: Params, shapes: Mapping[str, tuple[int, ...]], *, sparse: bool = False
) -> Any:
    """Return the build configuration: TF32 as asked, full layer information, inputs of exactly these shapes."""
    config = builder.create_builder_config()
    if not params.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = params.optimization_level
    if any(-1 in tuple(network.get_input(index).shape) for index in range(network.num_inputs)):
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape, shape, shape)
        config.add_optimization_profile(profile)
    return config


def input_shapes(network: Any, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the input shapes at a batch.

    Raises:
        Unsupported: A dimension other than the first is free.
    """
    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        dims = tuple(int(size) for size in tensor.shape)
        if -1 in dims[1:]:
            raise Unsupported(f"input {tensor.name!r} has a free dimension that is not the batch: {dims}")
        shapes[tensor.name] = (batch if dims[:1] == (-1,) else dims[0], *dims[1:]) if dims else ()
    return shapes


def build_plan(trt: Any, logger: Any, onnx: Path, params: Params, batch: int, *, sparse: bool = False) -> bytes:
    """Build an engine and return it serialised.

    Args:
        trt: The library's module.
        logger: Of ``make_logger``.
        onnx: The file; its types are the precision.
        params: How it is built.
        batch: Of the inputs.
        sparse: Let the builder take 2:4 kernels.

    Raises:
        Unsupported: The parser refuses the file.
        HarnessError: The build fails.
    """
    builder, network, _parser = parse(trt, logger, onnx)
    config = configure(trt, builder, network, params, input_shapes(network, batch), sparse=sparse)
    plan = builder.build_serialized_network(network, config)
    if plan is None:  # it does not raise
        raise HarnessError(f"the engine cannot be built: {why(logger)}")
    return bytes(plan)
