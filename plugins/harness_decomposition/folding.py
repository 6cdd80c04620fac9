"""BatchNorm folded into the layer before it: the same function with fewer operators."""

from __future__ import annotations

from typing import Any

from harness.api import Job, Model, NoParams, Unsupported
from harness_decomposition.steps import runs

CLOSE = 1e-3  # relative, of outputs before and after: float32 rounding reordered, nothing more


def compress(model: Model, _params: NoParams, job: Job) -> Model:
    """Fold every batch normalisation that directly follows a convolution or a linear layer.

    Raises:
        Unsupported: There is none, the code of the model cannot be followed, or the outputs would change.
    """
    import torch

    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms

    module = load(model)
    inputs = example_inputs(job, batch=2)
    before = runs("batchnorm-folding", module, inputs)
    if not fold_batch_norms(module, inputs):
        raise Unsupported(
            "batchnorm-folding found no batch normalisation right after a convolution or linear layer, or the code of "
            "this model cannot be followed"
        )
    after = runs("batchnorm-folding", module, inputs)
    for old, new in zip(_several(before), _several(after), strict=True):
        if not torch.allclose(old, new, rtol=CLOSE, atol=CLOSE * float(old.abs().max())):
            raise Unsupported("batchnorm-folding would change the outputs: a layer is used in more than one way")
    return save(module, model, job)


def _several(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
