"""What a header says of the scaling of rope angles beyond the context that a model was trained at. No tables here.

Facts of llama.cpp (its loader, llama_context's constructor, ggml's rope_yarn): the YaRN paper's temperature (Peng et
al., 2023) is part of cos and sin, and DeepSeek's correction of it part of the scale of the scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.models.hyperparameters import Hyperparameters

KINDS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class RopeScaling:
    """kind: of KINDS. factor: how much longer the context is than `original`, the one in training (None: not said).
    size: what cos and sin are multiplied by. scores: what q.k is multiplied by beside the usual scale (MLA only).
    fast, slow: turns within the original context; frequencies between them are mixed by YaRN.
    """

    kind: str
    factor: float
    original: int | None
    size: float
    scores: float
    fast: float
    slow: float

    @staticmethod
    def of(hp: Hyperparameters, mla: bool) -> RopeScaling:
        """Raises HeaderError for a kind that is not known."""
        kind = hp.text("rope.scaling.type", "linear")
        if kind not in KINDS:
            raise hp.error(f"{hp.name('rope.scaling.type')} is {kind!r}, known are {', '.join(KINDS)}")
        factor = hp.number("rope.scaling.factor", 0.0) or hp.number("rope.scale_linear", 0.0) or 1.0
        size, scores = hp.number("rope.scaling.attn_factor", 0.0) or 1.0, 1.0
        if kind == "yarn":
            all_dims = hp.number("rope.scaling.yarn_log_multiplier", 0.0)
            if mla:  # converters write a tenth of DeepSeek's mscale_all_dim, which is its mscale, too
                size *= 1.0 if all_dims else _temperature(factor, 1.0)
                scores = (size * _temperature(factor, 10 * all_dims)) ** 2
            else:
                size *= _temperature(factor, 1.0) / _temperature(factor, all_dims)
        fast, slow = (
            hp.number(f"rope.scaling.yarn_beta_{name}", default) for name, default in (("fast", 32.0), ("slow", 1.0))
        )
        original = hp.integer("rope.scaling.original_context_length", hp.integer("context_length", 0, low=0), low=0)
        return RopeScaling(kind, 1.0 if kind == "none" else factor, original or None, size, scores, fast, slow)


def _temperature(factor: float, multiplier: float) -> float:
    return 1.0 + 0.1 * multiplier * math.log(factor) if factor > 1 else 1.0
