"""Modules and programs of torch.export: one file holds operators, weights and the names of inputs and outputs."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import MissingDependency, Model, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

HINT = "pip install 'compression-harness[torch]'"
_FACTS = "harness.json"


def import_torch() -> Any:
    """Return the module.

    Raises:
        MissingDependency: It is not installed, or does not load here.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise MissingDependency(f"torch cannot be imported: {error}", hint=HINT) from error
    return torch


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep torch's and torchao's advice to developers out of the way."""
    loggers = [logging.getLogger(name) for name in ("torch", "torchao", "torch.utils._pytree", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export(
    module: nn.Module, example: tuple[Tensor, ...], specs: Mapping[str, TensorSpec], *, variadic: bool = False
) -> Any:
    """Return the program of a module, free in the dimension of the items.

    Args:
        module: In evaluation mode; takes its inputs by position.
        example: Inputs of batch 2 or more: 0 and 1 would be taken for constants.
        specs: The inputs with their roles.
        variadic: The module is declared with ``*inputs``, whose shapes torch wants in a tuple of their own.

    Raises:
        Unsupported: torch.export cannot follow the module, or it fixes the batch.
    """
    from harness_torch import programs

    with quiet():
        return programs.export(module, example, variadic=variadic, specs=specs)


@dataclass(frozen=True)
class Facts:
    """What a program file says beside the program.

    Attributes:
        inputs: As the model declares them: what is fed and ranked, whatever dtype the operators compute in.
        outputs: As the program declares them; sizes that depend on the input are free.
        quantized: Whether quantize and dequantize operators wait to be fused when the file is loaded.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    quantized: bool


def save(program: Any, model: Model, path: Path, *, quantized: bool) -> None:
    """Write a program with its facts."""
    inputs = {name: [spec.dtype, list(spec.shape)] for name, spec in model.inputs.items()}
    facts = json.dumps({"inputs": inputs, "outputs": list(model.outputs), "quantized": quantized})
    with quiet():
        import_torch().export.save(program, path, extra_files={_FACTS: facts})


def load(path: Path) -> tuple[Any, Facts]:
    """Return the module of a program, which takes inputs by position, and its facts."""
    torch = import_torch()
    held = {_FACTS: ""}
    with quiet():
        program = torch.export.load(path, extra_files=held)
        module = program.module(check_guards=False)
    facts = json.loads(held[_FACTS])
    inputs = {name: TensorSpec(dtype, tuple(shape)) for name, (dtype, shape) in facts["inputs"].items()}
    outputs = dict(zip(facts["outputs"], _results(program), strict=True))
    return module, Facts(inputs, outputs, bool(facts["quantized"]))


def _results(program: Any) -> Iterator[TensorSpec]:
    """Yield dtype and shape of what a program returns, in its order."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    for name in program.graph_signature.user_outputs:
        value = values[name]
        sizes = tuple(size if isinstance(size, int) else None for size in value.shape)
        yield TensorSpec(str(value.dtype).removeprefix("torch."), sizes)
