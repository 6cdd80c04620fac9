"""ExecuTorch's Python binding, and the facts that a program of ours says about itself."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Generator
from importlib import metadata
from typing import Any

from harness.api import MissingDependency

HINT = "pip install 'compression-harness[executorch]'"
METHOD = "forward"
_LOGGERS = ("executorch", "torch", "torchao", "torch.export", "torch.utils._pytree", "coremltools")
# For a backend that no program of ours uses; left set, it would name OpenVINO's library to whatever runs next.
_SET_BY_IMPORT = "OPENVINO_LIB_PATH"


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep what the libraries advise their developers off the terminal."""
    loggers = [logging.getLogger(name) for name in ("", *_LOGGERS)]
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


def import_runtime() -> Any:
    """Return the binding's module.

    Raises:
        MissingDependency: It is not installed, or does not load here.
    """
    known = os.environ.get(_SET_BY_IMPORT)
    try:
        with quiet():
            from executorch.extension.pybindings import portable_lib
    except (ImportError, OSError) as error:
        raise MissingDependency(f"executorch cannot be imported: {error}", hint=HINT) from error
    finally:
        if known is None:
            os.environ.pop(_SET_BY_IMPORT, None)
    return portable_lib


def version() -> str:
    """Return the installed version."""
    return metadata.version("executorch")
