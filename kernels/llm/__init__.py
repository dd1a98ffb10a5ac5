"""A whole model over tuned kernels: `load("model.gguf")` is tinygrad.llm's Transformer, packed and tuned."""

from __future__ import annotations

from kernels.llm.model import TESTED, ModelError, Sizes, Transformer, load, sizes

__all__ = ["TESTED", "ModelError", "Sizes", "Transformer", "load", "sizes"]
