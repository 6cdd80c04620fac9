"""Whether two ONNX files give the same outputs, run without any rewriting by the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_onnx.graph import import_onnx, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-3  # largest difference over the largest value: float32 sums in another order differ by about 1e-6
_CHANGED_CHOICES = 0.01  # share of integers or booleans that may differ where two candidates tie


def plain_session(path: Path, *, rewritten: bool = False) -> Any:
    """Return ONNX Runtime's session of a file with every rewriting off, or on; None where it is not installed.

    Raises:
        Exception: The runtime does not load the file; its errors are of its own classes.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewritten else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runs(path: Path, inputs: Feed) -> bool:
    """Tell whether ONNX Runtime runs a file, rewritten as by default; without it, whether ONNX's reference does."""
    try:
        session = plain_session(path, rewritten=True)
        if session is not None:
            session.run(None, dict(inputs))
        else:
            runner(path)(inputs)
    except Exception:  # noqa: BLE001  its errors are of its own classes
        return False
    return True


def runner(path: Path) -> Callable[[Feed], list[Any]]:
    """Return a call that runs a file as it stands: by ONNX Runtime where it can, else by ONNX's reference.

    Raises:
        Exception: Neither loads the file.
    """
    try:
        session = plain_session(path)
    except Exception:  # noqa: BLE001  an operator without a kernel there; the reference may have it
        session = None
    if session is not None:
        return lambda feed: list(session.run(None, dict(feed)))
    from onnx.reference import ReferenceEvaluator

    import_onnx()
    evaluator = ReferenceEvaluator(load(path))
    return lambda feed: list(evaluator.run(None, dict(feed)))


def difference(before: Path, after: Path, feeds: Sequence[Feed]) -> str:
    """Return how the outputs of two files differ, in a few words; empty where they agree.

    They are run on the first feed that the file ``before`` takes; a batch may be written into it.
    """
    names = [item.name for item in load(before).graph.output]
    if names != [item.name for item in load(after).graph.output]:
        return "its outputs have other names"
    why = ""
    for feed in feeds:
        try:
            wanted = runner(before)(feed)
        except Exception as error:  # noqa: BLE001  what does not run cannot be compared
            why = f"the file as it came cannot be run to compare ({type(error).__name__})"
            continue
        try:
            got = runner(after)(feed)
        except Exception as error:  # noqa: BLE001
            return f"it does not run ({type(error).__name__})"
        differing = (name for name, *pair in zip(names, wanted, got, strict=True) if not _same(*pair))
        return next((f"output {name!r} differs" for name in differing), "")
    return why


def _same(wanted: Any, got: Any) -> bool:
    import numpy as np

    if isinstance(wanted, list):  # a sequence
        return isinstance(got, list) and len(wanted) == len(got) and all(map(_same, wanted, got))
    if isinstance(wanted, dict):  # a map of scikit-learn's classifiers
        return isinstance(got, dict) and wanted.keys() == got.keys() and all(_same(wanted[k], got[k]) for k in wanted)
    one, other = np.asarray(wanted), np.asarray(got)
    return one.dtype == other.dtype and not answers_differ(one, other, TOLERANCE)


def answers_differ(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> bool:
    """Tell whether two answers differ in shape, or by more than another order of sums explains.

    Args:
        one: What is due.
        other: What came.
        tolerance: Largest difference over the largest value, of floats; of integers and booleans, which choose between
            candidates, a hundredth may differ.
    """
    import numpy as np

    if one.shape != other.shape:
        return True
    if one.dtype.kind not in "fc" and one.dtype.name != "bfloat16":
        return bool(one.size) and float(np.mean(one != other)) > _CHANGED_CHOICES
    one, other = one.astype(np.float64), other.astype(np.float64)
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return True
    usable = np.isfinite(one)
    if not np.array_equal(one[~usable & ~np.isnan(one)], other[~usable & ~np.isnan(one)]):
        return True
    scale = float(np.abs(one[usable]).max(initial=0.0)) or 1.0
    return not float(np.abs(one[usable] - other[usable]).max(initial=0.0)) <= tolerance * scale
