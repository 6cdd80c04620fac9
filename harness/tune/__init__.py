"""Search a pipeline's parameters against measured objectives; the winners are measured again by a normal run."""

from __future__ import annotations

from harness.tune.run import TuneResult, tune
from harness.tune.values import OBJECTIVES, Study, Trial, TuneRequest

__all__ = ["OBJECTIVES", "Study", "Trial", "TuneRequest", "TuneResult", "tune"]
