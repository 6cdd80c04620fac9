"""An exception that nobody expected: one sentence for the user, the traceback in a file."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path

import harness
from harness.build.cache import default_root
from harness.explain import first_line


def told(error: BaseException) -> tuple[str, str]:
    """Return the sentence and the hint that a user reads."""
    said = f"{type(error).__name__}: {first_line(str(error))}".removesuffix(": ")
    where = _written(f"harness {harness.__version__}\n\n{''.join(traceback.format_exception(error))}")
    lies = f"; the traceback is in {where}" if where is not None else ""
    return f"this is a fault of harness, not of yours: {said}{lies}", "HARNESS_DEBUG=1 shows it here; please report it"


def _written(text: str) -> Path | None:
    """Write the text into the first folder that takes it."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-crash-{os.getpid()}.log"
    for folder in (default_root() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="replace")
        except OSError:
            continue
        return folder / name
    return None
