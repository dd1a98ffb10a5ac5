"""A whole model over tuned kernels: `load("model.gguf")` returns tinygrad.llm's Transformer with packed weights."""

from __future__ import annotations

from kernels.llm.model import Transformer, load, load_planned
from kernels.llm.planned import TESTED, ModelError, PlannedModel, Sizes, plan

__all__ = ["TESTED", "ModelError", "PlannedModel", "Sizes", "Transformer", "load", "load_planned", "plan"]
