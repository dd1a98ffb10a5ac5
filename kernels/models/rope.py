"""The header's parameters of the rotation of q and k: how much of a head rotates, the base, and the scaling for
contexts longer than the one used in training. `kernels.llm.angles` makes the tables.

Facts of llama.cpp (its loader, llama_context's constructor, ggml's rope_yarn, its deepseek2 graph). The temperature of
the YaRN paper (Peng et al., 2023) is part of cos and sin. DeepSeek's correction of it is part of the attention scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kernels.models.hyperparameters import Hyperparameters

KINDS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class RopeScaling:
    """kind       one of KINDS
    factor     the context divided by the one used in training
    original   the context used in training, None if the file does not say
    own        the value of rope.scaling.attn_factor
    size       the factor of cos and sin, which includes `own`
    scores     an additional factor of q.k (MLA only)
    fast, slow numbers of rotations within the original context; YaRN blends the frequencies between them
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
        """The scaling that the header asks for. Raises HeaderError for an unknown kind."""
        kind = hp.text("rope.scaling.type", "linear")
        if kind not in KINDS:
            raise hp.error(f"{hp.name('rope.scaling.type')} is {kind!r:.80}, expected one of {', '.join(KINDS)}")
        key = next((key for key in ("rope.scaling.factor", "rope.scale_linear") if key in hp.own), None)
        factor = 1.0 if key is None or kind == "none" else hp.number(key) or 1.0
        own = hp.number("rope.scaling.attn_factor", 1.0)
        log_multiplier = hp.number("rope.scaling.yarn_log_multiplier", 0.0)
        size, temperature = own, 1.0 + 0.1 * math.log(factor)
        if mla:  # the key holds a tenth of DeepSeek's mscale_all_dim, which equals its mscale
            log_multiplier *= 10
        if kind == "yarn":
            above = 1.0 if mla and log_multiplier else _temperature(factor, 1.0)
            size *= above / (1.0 if mla else _temperature(factor, log_multiplier))
        # deepseek2 divides YaRN's temperature out of attn_factor, even if it was not multiplied in
        whole = size if kind == "yarn" else size * temperature
        scores = (whole * (1.0 + 0.1 * log_multiplier * math.log(factor))) ** 2 if mla else 1.0
        fast, slow = (
            hp.number(f"rope.scaling.yarn_beta_{name}", default) for name, default in (("fast", 32.0), ("slow", 1.0))
        )
        original = hp.integer("rope.scaling.original_context_length", hp.integer("context_length", 0, low=0), low=0)
        return RopeScaling(kind, factor, original or None, own, size, scores, fast, slow)

    @property
    def off(self) -> RopeScaling:
        """The scaling of layers whose frequencies are not scaled: only the key's factor of cos and sin remains."""
        return replace(self, kind="none", factor=1.0, size=self.own)


def _temperature(factor: float, multiplier: float) -> float:
    return 1.0 + 0.1 * multiplier * math.log(factor) if factor > 1 else 1.0


def rope_dim(hp: Hyperparameters) -> int:
    """The number of items of a head that are rotated."""
    width = hp.integer("embedding_length") // hp.integer("attention.head_count", layer=0)
    return hp.integer("rope.dimension_count", hp.integer("attention.key_length", width or None))


def rope_base(hp: Hyperparameters, key: str = "rope.freq_base", default: float = 10000.0) -> float:
    base = hp.number(key, default)
    if base <= 1:
        raise hp.error(f"{hp.name(key)} is {base}, expected a number above 1")
    return base


def check_rotation(hp: Hyperparameters, mla: bool) -> None:
    """Raises HeaderError for invalid keys of the rotation."""
    RopeScaling.of(hp, mla)
    rope_base(hp)


def has_sections(hp: Hyperparameters) -> bool:
    """Whether rope.dimension_sections asks for M-RoPE. For text, the first three coordinates are the position and the
    fourth is 0. Raises HeaderError unless the key holds four sizes, and if some frequencies use the fourth
    coordinate."""
    key = "rope.dimension_sections"
    found = hp.items(key) or (hp.integer(key, 0, low=0),) * 4
    if len(found) != 4 or any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in found):
        raise hp.error(f"{hp.name(key)} is {found!r:.80}, expected four sizes")
    used = found[0] > 0 and found[1] > 0
    if used and found[3]:
        raise hp.error(
            f"{hp.name(key)} is {found}: a fourth section, which does not rotate text, is not supported; use llama.cpp"
        )
    return used
