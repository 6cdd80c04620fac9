"""The architectures, in plain torch.nn; the only modules here that import torch, and only when a model is built."""

from __future__ import annotations
