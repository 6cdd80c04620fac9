"""Make an installed plugin out of a few lines of source, for tests that need a real distribution."""

from __future__ import annotations

import textwrap
from pathlib import Path


def make_plugin(tmp_path: Path, name: str, source: str) -> Path:
    """Write a module with an entry point ``name`` and its metadata; put the folder returned on PYTHONPATH."""
    site = tmp_path / "site"
    info = site / f"plug_{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    module = f"plug_{name.replace('-', '_')}"
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[harness]\n{name} = {module}\n")
    return site
