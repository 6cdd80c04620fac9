"""ExecuTorch's Python binding, and the facts that a program of ours says about itself."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Generator
from importlib import metadata
from typing import Any

from harness.api import MissingDependency

HINT = "pip install 'compression-harness[executorch]'"
METHOD = "forward"
_LOGGERS = ("executorch", "torch", "torchao", "torch.export", "torch.utils._pytree", "coremltools")


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
    try:
        with quiet():
            from executorch.extension.pybindings import portable_lib
    except (ImportError, OSError) as error:
        raise MissingDependency(f"executorch cannot be imported: {error}", hint=HINT) from error
    return portable_lib


def version() -> str:
    """Return the installed version."""
    return metadata.version("executorch")
