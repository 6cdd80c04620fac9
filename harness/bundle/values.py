"""What a bundle says of itself, and what reproducing it comes to: frozen values, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.plan import Request

SCHEMA = 1
ENDING = ".hev"
INFO = "bundle.json"
RUN = "run"  # the run's folder, as far as it is about the cell
CHAIN = "chain.jsonl"  # the whole manifest of the run that the cell was taken from
CONFIG = "cell.toml"
REPORT = "report.md"
PAGE = "report.html"  # the interactive one, where the report extra is installed
PACK = "artifacts/cell.hpk"

Outcome = Literal["same", "differs", "undecided", "not compared"]
Verdict = Literal["reproduced", "not reproduced", "undecided"]


def title(labels: Mapping[str, str]) -> str:
    """Return a cell in words: workload, method, target."""
    return " ".join(labels.get(name, "") for name in ("workload", "method", "target"))


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle holds; the member ``bundle.json``.

    Attributes:
        cell_id: Whose evidence it is.
        anchor: cell_id of what it is compared with; its evidence is here too. ``None`` without one.
        request: Plans just this cell and its anchor; no interpreter of the machine is in it.
        command: The same as a command line.
        unit: The machine that it was measured on.
        manifest_head: Hash of the last line of the run's manifest: it stands for the whole run.
        redacted: Files of the run from which paths of the machine were taken out; their hash is no longer the run's.
        with_artifacts: The artifacts of the cell and its anchor are here, as a pack.
        with_page: The same is here as a self-contained HTML page.
        breaks: Demands of ``harness verify`` that the evidence breaks though its files are whole, each with its file.
    """

    schema: int
    harness: str
    cell_id: str
    anchor: str | None
    labels: Mapping[str, str]
    request: Request
    command: str
    run_id: str
    unit: str
    host_id: str
    manifest_head: str
    artifact_sha256: str
    model_sha256: str | None
    redacted: tuple[str, ...] = ()
    with_artifacts: bool = False
    with_page: bool = False
    breaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One figure of the bundle against the same figure measured again.

    Attributes:
        packed, here: Both in words.
        reason: Why the outcome is what it is.
    """

    name: str
    outcome: Outcome
    packed: str
    here: str
    reason: str = ""


@dataclass(frozen=True)
class Reproduction:
    """Whether a bundle reproduces.

    Attributes:
        basis: "same artifact", "same model" (lowered again) or "same recipe" (built again, another model).
        reason: Why, in one sentence.
        run: The folder of the run that measured again.
        same_host: It was measured on the machine of the bundle.
    """

    schema: int
    bundle: str
    cell_id: str
    labels: Mapping[str, str]
    verdict: Verdict
    basis: str
    reason: str
    run: str
    same_host: bool
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
