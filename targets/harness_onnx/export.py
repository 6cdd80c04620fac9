"""PyTorch to ONNX: one file, free batch dimension, checked against the module it came from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import (
    Job,
    MissingDependency,
    Model,
    Options,
    TensorSpec,
    Unsupported,
    feed,
    first_line,
    fixed_batch,
    items_in,
)
from harness_onnx.agreement import answers_differ
from harness_onnx.einsum import einsums_as_products
from harness_onnx.graph import BATCH, GATES, check_file, import_onnx, load, model_io, normalise
from harness_onnx.quantize import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

OPSET = 18  # what torch.onnx translates to natively; every target here reads it
_MOST = 3  # items of the larger call that is compared
_TOLERANCE = 5e-4  # largest difference over the largest output; float32 kernels that reorder sums differ by ~1e-6
log = logging.getLogger("harness")


def export(model: Model, options: Options, job: Job) -> Model:
    """Write ``model.onnx`` with the model's own input and output names and check it at batch 1 and 3.

    The exporter of exported programs is tried first, then the tracing one, which takes more models but is
    deprecated; the one that gives the module's own outputs is kept.

    Raises:
        Unsupported: Neither gives a file that agrees with the module; both reasons are told.
    """
    del options
    import_onnx()
    from harness_torch import load as load_module

    module = load_module(model)
    path = job.out / "model.onnx"
    failures = []
    for name, write in (("torch.export", _write_exported), ("tracing", _write_traced)):
        try:
            job.progress(0.1, f"exporting by {name}")
            write(module, model, path)
            _tidy(path)
            check_file(path)
            _compare(module, model, path, _items(model, job))
        except MissingDependency:
            raise
        except Exception as error:  # noqa: BLE001  an exporter may raise anything; the other is tried, both are told
            failures.append(f"{name}: {type(error).__name__}: {first_line(str(error))}")
            log.info("export by %s failed: %s", name, error)
            continue
        names = {**_renamed(module, path), **_recurrent(module, model, path)}
        return dataclasses.replace(model, format="onnx", path=path, names=names)
    raise Unsupported(f"the model cannot be exported to ONNX with a free batch: {'; '.join(failures)}")


def _write_exported(module: nn.Module, model: Model, path: Path) -> None:
    import torch

    _need_onnxscript()
    with quiet():
        program = torch.onnx.export(
            module,
            _example(model),
            dynamo=True,
            dynamic_shapes=tuple(_free(spec) for spec in model.inputs.values()),
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            opset_version=OPSET,
            optimize=True,
            verify=False,
            report=False,
        )
        if program is None:
            raise Unsupported("torch.onnx.export returned no program")
        program.save(str(path), external_data=False)


def _write_traced(module: nn.Module, model: Model, path: Path) -> None:
    import torch

    with quiet():
        torch.onnx.export(
            module,
            _example(model),
            str(path),
            dynamo=False,
            dynamic_axes=_free_axes(model),
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            opset_version=OPSET,
        )


def _free(spec: TensorSpec) -> dict[int, str] | None:
    return {spec.axis: BATCH} if spec.axis is not None and spec.shape[spec.axis] is None else None


def _free_axes(model: Model) -> dict[str, dict[int, str]]:
    """Return the dimension that holds the items of each input and output that takes any number of them."""
    found = {name: free for name, spec in model.inputs.items() if (free := _free(spec))}
    if fixed_batch(model.inputs) is None:
        axes = {name: model.axes.get(name, 0) for name in model.outputs}
        found |= {name: {axis: BATCH} for name, axis in axes.items() if axis is not None}
    return found


def _need_onnxscript() -> None:
    try:
        import onnxscript  # noqa: F401  # the exporter imports it
    except ImportError as error:
        hint = "pip install 'compression-harness[torch]'"
        raise MissingDependency(f"exporting to ONNX needs onnxscript: {error}", hint=hint) from error


def _example(model: Model) -> tuple[Tensor, ...]:
    from harness_torch import example_inputs

    return example_inputs(model.inputs, batch=2)  # 0 and 1 would be taken for constants


def _tidy(path: Path) -> None:
    onnx = import_onnx()
    model = load(path)
    normalise(model)
    einsums_as_products(model)
    model.producer_version = ""
    del model.metadata_props[:]  # they hold stack traces with paths of this host
    del model.graph.metadata_props[:]  # the exporter's symbols, among them those of what this process exported before
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, str(path))


def _items(model: Model, job: Job) -> dict[int, dict[str, NDArray[Any]]]:
    """Return calls of one and of three real items where the workload has calibration data, else seeded ones."""
    from harness_torch import example_inputs

    fixed = fixed_batch(model.inputs)
    arrays = job.data.split("calibration").inputs
    real = set(arrays) == set(model.inputs) and min(items_in(model.inputs, arrays).values()) >= (fixed or _MOST)
    found = {}
    for batch in (fixed,) if fixed else (1, _MOST):
        if real:
            found[batch] = feed(model.inputs, arrays, range(batch))
        else:
            example = (item.numpy() for item in example_inputs(model.inputs, batch=batch))
            found[batch] = dict(zip(model.inputs, example, strict=True))
    return found


def _compare(module: nn.Module, model: Model, path: Path, items: Mapping[int, Mapping[str, NDArray[Any]]]) -> None:
    names = (tuple(model_io(path)[0]), tuple(model_io(path)[1]))
    if names != (tuple(model.inputs), model.outputs):
        raise Unsupported(f"the file's inputs and outputs are {names}, not those of the model")
    run = _runner(path)
    for batch, given in items.items():
        wanted = _answers(module, model, given)
        for name, got in zip(model.outputs, run(given), strict=True):
            if answers_differ(wanted[name], got, _TOLERANCE):
                raise Unsupported(f"output {name!r} of the file differs from the module's at batch {batch}")


def _answers(module: nn.Module, model: Model, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    import numpy as np
    import torch

    with torch.inference_mode():
        result = module(*(torch.from_numpy(np.array(given[name])) for name in model.inputs))
    several = result if isinstance(result, (tuple, list)) else (result,)
    return {name: value.numpy() for name, value in zip(model.outputs, several, strict=True)}


def _runner(path: Path) -> Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]:
    """Return a call that runs the file: by ONNX Runtime where it is installed, else by ONNX's reference."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(path))
        return lambda feed: reference.run(None, dict(feed))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, dict(feed))


def _renamed(module: nn.Module, path: Path) -> dict[str, str]:
    """Return parameter name -> initializer name, where folding gave a weight another name or transposed it."""
    import numpy as np

    onnx = import_onnx()
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in load(path).graph.initializer}
    renamed = {}
    for name, parameter in module.named_parameters():
        if name in weights or parameter.dim() < 2:
            continue
        value = parameter.detach().numpy()
        for other, array in weights.items():
            if any(array.shape == form.shape and np.array_equal(array, form) for form in (value, value.T)):
                renamed[name] = other
    return renamed


def _recurrent(module: nn.Module, model: Model, path: Path) -> dict[str, str]:
    """Return parameter name -> what a recurrent node reads in its place: gates in another order, folded or not.

    Both sides stand in the order of the call. Nothing is returned where they differ in number, as where a module is
    called twice or a layer was written out.
    """
    from torch import nn

    from harness_torch.weights import weights_in_order

    nodes = [node for node in load(path).graph.node if node.op_type in GATES]
    if not nodes:
        return {}
    pairs: dict[tuple[nn.Module, str], list[str]] = {}
    for item in weights_in_order(module, _example(model)):
        if isinstance(item.owner, nn.RNNBase) and "weight_hr" not in item.attribute:
            level = item.name.removesuffix("_reverse").rpartition("_l")[2]
            pairs.setdefault((item.owner, level), []).append(item.name)
    if len(pairs) != len(nodes):
        return {}
    return {
        name: node.input[2 if "weight_hh" in name else 1]
        for names, node in zip(pairs.values(), nodes, strict=True)
        for name in names
    }
