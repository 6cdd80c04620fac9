"""What a model's weights hold that a narrower type cannot."""

from __future__ import annotations

from typing import Any

from harness.api import Model, Unsupported
from harness_openvino.reading import weights

_LARGEST = 65504.0  # of float16


def refuse_nan(model: Model, graph: Any) -> None:
    """Check that no weight holds NaN, from which no scale can be found.

    Raises:
        Unsupported: One does.
    """
    import numpy as np

    for name, values in weights(model, graph):
        count = int(np.isnan(values).sum())
        if count:
            raise Unsupported(f"weight {name!r} holds NaN ({count} of its {values.size} values), which has no scale")


def is_half(model: Model, graph: Any) -> bool:
    """Tell whether the matrices and kernels of a model are float16 as they came."""
    return {str(values.dtype) for _name, values in weights(model, graph) if values.ndim > 1} == {"float16"}


def overflowing(model: Model, graph: Any) -> dict[str, int]:
    """Return, by the weight's name, how many finite values are beyond float16's largest, 65504."""
    import numpy as np

    counted = (
        (name, int(((np.abs(item) > _LARGEST) & np.isfinite(item)).sum())) for name, item in weights(model, graph)
    )
    return {name: count for name, count in counted if count}
