"""Whose machine a run was measured on: the units of a merged tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.store import files, layout
from harness.types import SCHEMA


@dataclass(frozen=True)
class Unit:
    """One physical machine in a merged tree, as ``unit.json`` beside its runs.

    Attributes:
        unit: Its name, which is its folder's.
        host_id: Of all its runs; two units of one SKU may share it.
        sku: What a buyer would order, from the host's facts.
        stand_in: What it really is, where it only stands in for a machine; empty for a real one.
    """

    schema: int
    unit: str
    host_id: str
    sku: str
    stand_in: str = ""


def sku_of(facts: Mapping[str, str]) -> str:
    """Return what a buyer would order: processor, cores, memory and accelerator, as far as the host tells."""
    known = {name: value for name, value in facts.items() if not value.startswith("not available")}
    parts = [known.get("cpu_model_name", known.get("cpu", "unknown processor"))]
    if "cores_physical" in known:
        parts.append(f"{known['cores_physical']} cores")
    if known.get("ram_bytes", "").isdecimal():
        parts.append(f"{int(known['ram_bytes']) / 2**30:.0f} GiB")
    if "gpu_name" in known:
        parts.append(known["gpu_name"])
    return ", ".join(parts)


def read_unit(host: Path) -> Unit | None:
    """Return the unit of a host folder, or None outside merged trees.

    Raises:
        RecordError: The file is damaged or of a newer schema.
    """
    file = host / layout.UNIT
    return files.decode(Unit, file.read_bytes(), str(file)) if file.is_file() else None


def new_unit(name: str, host_id: str, facts: Mapping[str, str], stand_in: str) -> Unit:
    """Return a unit for a host that is new to a tree."""
    return Unit(SCHEMA, name, host_id, sku_of(facts), stand_in)
