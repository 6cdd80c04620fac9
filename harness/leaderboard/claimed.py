"""What each method was asked for beside what it did: one line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("method", "asked for", "did")


def claim_lines(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Return a line for each method that says what it was asked for.

    Args:
        rows: Finished cells of one section, with None for what is not known.
    """
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["asked"]:
            methods.setdefault(row["method"], []).append(row)
    return tuple((method, _asked(found[0]["asked"]), _did(found)) for method, found in methods.items())


def _asked(text: str) -> str:
    """Leave the step's name out where there is but one."""
    return text if ";" in text else text.partition(": ")[2] or text


def _did(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = _by_target({row["target"]: row["achieved"] or "" for row in rows})
    sizes = _by_target({row["target"]: _smaller(row["weight_bytes_removed"]) for row in rows})
    packed = _by_target({row["target"]: _packed(row) for row in rows})
    return "; ".join(text for text in (counts, sizes, packed) if text)


def _packed(row: Mapping[str, Any]) -> str:
    """Say how much smaller the file is stored than the runtime loads it, where a decoder restores it."""
    loaded, stored = row["artifact_bytes"], row["stored_bytes"]
    if not row["stored_as"] or not loaded or not stored:
        return ""
    return f"stored {100 * (1 - stored / loaded):.0f} % smaller"


def _smaller(share: float | None) -> str:
    if share is None:
        return ""
    percent = f"{100 * abs(share):.0f} %"
    return f"weights {percent} {'larger' if share < -0.005 else 'smaller'}" if percent != "0 %" else ""


def _by_target(said: Mapping[str, str]) -> str:
    """Say once what all targets have, else each with its target."""
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{text} on {target}" for target, text in said.items() if text)
