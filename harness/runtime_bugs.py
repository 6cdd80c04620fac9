"""Public bugs of runtimes, as small graphs whose right answer is known: what ``harness selftest --runtimes`` runs."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

Symptom = Literal["wrong", "refused", "crashed"]
Outcome = Literal["right", "wrong", "refused", "crashed", "not-installed", "not-evaluable"]


@dataclass(frozen=True)
class BugCase:
    """What provokes a bug, and how its answer is judged.

    Attributes:
        inputs: By name.
        right: The right outputs by name, from arithmetic or from an implementation that is not the runtime's.
        build: An empty folder -> what ``answer`` runs, such as the path of a model file that it wrote there. An .onnx
            file is one that ``harness bench --model`` takes too. What it raises is taken for a fault of the case.
        answer: What was built, and the inputs -> the runtime's outputs by name. What it raises counts as refused;
            ``Unsupported`` says that the bug cannot be tried on this host.
        atol, rtol: Largest difference of floats that is not wrong, absolute and relative to the right value; whatever
            is no float has to be equal.
    """

    inputs: Arrays
    right: Arrays
    build: Callable[[Path], Any]
    answer: Callable[[Any, Arrays], Arrays]
    atol: float = 1e-6
    rtol: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class RuntimeBug:
    """A public bug of a runtime, or of a vendor's tool.

    Attributes:
        name: kebab-case: project and number of the report, such as "openvino-35647".
        summary: One line: what goes wrong.
        url: Of the public report.
        runtime: Distribution under test, such as "onnxruntime".
        hit: Versions that are said to be hit, in the report's words.
        symptom: What the report shows: a wrong answer, a right graph that is refused, or a crash.
        case: Dotted form "package.module:function" of what returns its ``BugCase``. It is imported in a process of
            its own, and neither it nor the case's arrays may need the runtime.
        packages: Other distributions that ``build`` and ``answer`` need.
        extra: The extra of our distribution that installs the runtime.
    """

    name: str
    summary: str
    url: str
    runtime: str
    hit: str
    symptom: Symptom
    case: str
    packages: tuple[str, ...] = ()
    extra: str = ""


def load_case(bug: RuntimeBug) -> BugCase:
    """Import and call what a bug names.

    Raises:
        TypeError: It returns no ``BugCase``.
    """
    made = pkgutil.resolve_name(bug.case)()
    if not isinstance(made, BugCase):
        raise TypeError(f"{bug.case} returns {type(made).__name__} where BugCase is due")
    return made


def differs(answered: Arrays, case: BugCase) -> str:
    """Say in one sentence how outputs differ from the right ones; empty where they are right."""
    import numpy as np  # only in the process that runs a bug

    for name, right in case.right.items():
        if name not in answered:
            return f"output {name!r} is missing"
        got, due = np.asarray(answered[name]), np.asarray(right)
        if got.shape != due.shape:
            return f"output {name!r} has shape {list(got.shape)} instead of {list(due.shape)}"
        if due.dtype.kind == "f":
            same = np.isclose(got.astype(float), due.astype(float), atol=case.atol, rtol=case.rtol, equal_nan=True)
        else:
            same = got == due
        if not np.all(same):
            where = tuple(int(index) for index in np.argwhere(~np.atleast_1d(same))[0])
            first, instead = np.atleast_1d(got)[where], np.atleast_1d(due)[where]
            count = f"{int((~np.atleast_1d(same)).sum())} of {due.size} elements of output {name!r} are wrong"
            return f"{count}, the first at {list(where)}: {_told(first)} instead of {_told(instead)}"
    return ""


def _told(value: Any) -> str:
    return f"{value:.6g}" if value.dtype.kind == "f" else str(value)
