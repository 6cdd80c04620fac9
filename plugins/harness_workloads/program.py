"""A program of torch.export as a module that can be saved, trained and exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.api import BadModel, first_line


def load_program(path: Path) -> Any:
    """Return a module of torch.nn layers that takes the program's inputs by position; parameters keep their names.

    Raises:
        BadModel: torch cannot read the program.
    """
    import torch

    from harness_torch.lifting import lifted

    try:
        return lifted(torch.export.load(path))
    except Exception as error:  # torch raises whatever its reader met; the file is the user's
        told = first_line(f"{type(error).__name__}: {error}")
        raise BadModel(f"model file {path} cannot be loaded by torch {torch.__version__}: {told}") from error
