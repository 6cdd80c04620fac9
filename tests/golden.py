"""Write the golden tree, results with every kind of row, to build views on: ``python tests/golden.py [FOLDER]``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from records import board_records, info

from harness.store import RunStore

GOLDEN = Path(__file__).parents[1] / "harness" / "testing" / "golden_tree"


def write(folder: Path) -> Path:
    """Write one run below a folder that has none; return the run's folder."""
    with RunStore.create(folder, info()) as run:
        for record in board_records():
            run.write_record(record)
        return run.folder


if __name__ == "__main__":
    if len(sys.argv) == 1:
        shutil.rmtree(GOLDEN, ignore_errors=True)  # else a second run would be written beside the first
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
