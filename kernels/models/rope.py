"""What a header says of the rotation of q and k: how much of a head turns, from which base, and the scaling beyond the
context that a model was trained at. No tables here.

Facts of llama.cpp (its loader, llama_context's constructor, ggml's rope_yarn, its deepseek2 graph): the YaRN paper's
temperature (Peng et al., 2023) is part of cos and sin, and DeepSeek's correction of it part of the scale of the scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kernels.models.hyperparameters import Hyperparameters

KINDS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class RopeScaling:
    """kind: of KINDS. factor: how much longer the context is than `original`, the one in training (None: not said).
    size: what cos and sin are multiplied by, `own` of which is the key's. scores: what q.k is multiplied by beside the
    usual scale (MLA only). fast, slow: turns within the original context; frequencies between them are mixed by YaRN.
    """

    kind: str
    factor: float
    original: int | None
    own: float
    size: float
    scores: float
    fast: float
    slow: float

    @staticmethod
    def of(hp: Hyperparameters, mla: bool) -> RopeScaling:
        """Raises HeaderError for a kind that is not known."""
        kind = hp.text("rope.scaling.type", "linear")
        if kind not in KINDS:
            raise hp.error(f"{hp.name('rope.scaling.type')} is {kind!r:.80}, known are {', '.join(KINDS)}")
        key = next((key for key in ("rope.scaling.factor", "rope.scale_linear") if key in hp.own), None)
        factor = 1.0 if key is None or kind == "none" else hp.number(key) or 1.0
        own, log_multiplier = (
            hp.number("rope.scaling.attn_factor", 1.0),
            hp.number("rope.scaling.yarn_log_multiplier", 0.0),
        )
        size, temperature = own, 1.0 + 0.1 * math.log(factor)
        if mla:  # converters write a tenth of DeepSeek's mscale_all_dim, which is its mscale, too
            log_multiplier *= 10
        if kind == "yarn":
            above = 1.0 if mla and log_multiplier else _temperature(factor, 1.0)
            size *= above / (1.0 if mla else _temperature(factor, log_multiplier))
        # deepseek2 divides YaRN's temperature out of its attn_factor, whether it is there or not
        whole = size if kind == "yarn" else size * temperature
        scores = (whole * (1.0 + 0.1 * log_multiplier * math.log(factor))) ** 2 if mla else 1.0
        fast, slow = (
            hp.number(f"rope.scaling.yarn_beta_{name}", default) for name, default in (("fast", 32.0), ("slow", 1.0))
        )
        original = hp.integer("rope.scaling.original_context_length", hp.integer("context_length", 0, low=0), low=0)
        return RopeScaling(kind, factor, original or None, own, size, scores, fast, slow)

    @property
    def off(self) -> RopeScaling:
        """Of layers that are not scaled: the key's own factor of cos and sin is all that is left."""
        return replace(self, kind="none", factor=1.0, size=self.own)


def _temperature(factor: float, multiplier: float) -> float:
    return 1.0 + 0.1 * multiplier * math.log(factor) if factor > 1 else 1.0


def rope_dim(hp: Hyperparameters) -> int:
    """How many items of a head turn."""
    width = hp.integer("embedding_length") // hp.integer("attention.head_count", layer=0)
    return hp.integer("rope.dimension_count", hp.integer("attention.key_length", width or None))


def rope_base(hp: Hyperparameters, key: str = "rope.freq_base", default: float = 10000.0) -> float:
    base = hp.number(key, default)
    if base <= 1:
        raise hp.error(f"{hp.name(key)} is {base}, expected a number above 1")
    return base


def check_rotation(hp: Hyperparameters, mla: bool) -> None:
    """Raises HeaderError for keys of the rotation that cannot be."""
    RopeScaling.of(hp, mla)
    rope_base(hp)


def has_sections(hp: Hyperparameters) -> bool:
    """Whether rope.dimension_sections asks for M-RoPE. Of text all coordinates but the fourth are the position itself,
    and the fourth is 0. Raises HeaderError for what is not four sizes, or where some frequencies take the fourth."""
    key = "rope.dimension_sections"
    found = hp.items(key) or (hp.integer(key, 0, low=0),) * 4
    if len(found) != 4 or any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in found):
        raise hp.error(f"{hp.name(key)} is {found!r:.80}, expected four sizes")
    used = found[0] > 0 and found[1] > 0
    if used and found[3]:
        raise hp.error(
            f"{hp.name(key)} is {found}: a fourth section, which text does not turn, is not done here; use llama.cpp"
        )
    return used
