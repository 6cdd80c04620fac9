"""The golden tree: hand-made results with every kind of row, to build views on."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path


def golden_results(folder: Path) -> Path:
    """Write a small results tree into a folder: rows of every status and every verdict, with made-up figures.

    The tree reads as any other does (``harness leaderboard``, ``harness.load_results``). There are no raw samples
    behind it, so that ``harness verify`` finds fault with it.

    Args:
        folder: Made where it is missing; a run of the tree that is there is written anew.

    Returns:
        The folder of the tree's one run.
    """
    with resources.as_file(resources.files("harness.testing") / "golden_tree") as tree:
        shutil.copytree(tree, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        (run,) = tree.glob("*/*")
    return folder / run.parent.name / run.name
