"""The build plane: train, compress, export and lower in builders, over a content-addressed cache."""

from __future__ import annotations

from harness.build.artifacts import own_artifacts
from harness.build.cache import Cache, Usage
from harness.build.events import BuildEvent
from harness.build.packer import pack, pack_request, write_pack
from harness.build.plane import Built, Evaluation, build_plan
from harness.build.probe import probe_targets
from harness.build.unpack import open_pack

__all__ = [
    "BuildEvent",
    "Built",
    "Cache",
    "Evaluation",
    "Usage",
    "build_plan",
    "open_pack",
    "own_artifacts",
    "pack",
    "pack_request",
    "probe_targets",
    "write_pack",
]
