"""The build plane: train, compress, export and lower in builders, over a content-addressed cache."""

from __future__ import annotations

from harness.build.cache import Cache, Usage
from harness.build.events import BuildEvent
from harness.build.plane import Built, Evaluation, build_plan
from harness.build.probe import probe_targets

__all__ = ["BuildEvent", "Built", "Cache", "Evaluation", "Usage", "build_plan", "probe_targets"]
