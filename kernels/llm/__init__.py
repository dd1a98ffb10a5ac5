"""A whole model over tuned kernels: `load("model.gguf")` is tinygrad.llm's Transformer, packed and tuned."""

from __future__ import annotations

from kernels.llm.model import TESTED, ModelError, Transformer, load

__all__ = ["TESTED", "ModelError", "Transformer", "load"]
