"""Provoke a bug of a runtime in the process that was started for it, and judge what the runtime answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness import explain
from harness.build import versions
from harness.build.tasks import Provoked, Use
from harness.errors import Unsupported
from harness.runtime_bugs import BugCase, RuntimeBug, differs, load_case

if TYPE_CHECKING:
    from harness.build.run import Plugins


def provoke(use: Use, plugins: Plugins) -> Provoked:
    """Run one bug's case; whatever it or the runtime raises is an outcome.

    Raises:
        PluginError: The plugin does not offer the bug.
    """
    bug: RuntimeBug = plugins.offer("bug", use).spec
    found = versions.versions((bug.runtime, *bug.packages))
    version = found[bug.runtime]
    if version == versions.MISSING:
        return Provoked("not-installed")
    missing = next((name for name in bug.packages if found[name] == versions.MISSING), None)
    if missing is not None:
        return Provoked("not-evaluable", version, f"it needs {missing}, which is not installed")
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        try:
            case = load_case(bug)
            built = case.build(Path(folder))
        except BaseException as error:  # noqa: BLE001  a case of a plugin may raise anything; it costs its own row
            return Provoked("not-evaluable", version, _said(error))
        return _answered(case, built, version)


def _answered(case: BugCase, built: object, version: str) -> Provoked:
    try:
        wrong = differs(case.answer(built, case.inputs), case)
    except Unsupported as error:
        return Provoked("not-evaluable", version, error.message)
    except ImportError as error:  # the runtime cannot be loaded here: it refused no graph
        return Provoked("not-evaluable", version, _said(error))
    except BaseException as error:  # noqa: BLE001  a runtime may raise anything, SystemExit included
        return Provoked("refused", version, _said(error))
    return Provoked("wrong" if wrong else "right", version, wrong)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {explain.first_line(str(error))}".removesuffix(": ")
