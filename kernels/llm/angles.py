"""A model's tables of rope angles: cos and sin of position * frequency, with what a GGUF says of scaling.

Facts of llama.cpp (src/llama-model.cpp, ggml's rope): linear scaling, YaRN (Peng et al., 2023), and factors for each
frequency from a tensor (llama 3's rope_freqs; phi 3's long and short ones).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kernels.models.decode_model import Model

Table = npt.NDArray[np.float32]
BETA_FAST, BETA_SLOW = 32.0, 1.0  # turns within the original context: between them YaRN mixes


def tables(model: Model, max_ctx: int, factors: Mapping[str, Table]) -> dict[str, Table]:
    """cos and sin [max_ctx, rope_dim / 2], by the names that launches take them; `.local` where there are such layers.

    factors: the file's tensors of frequency factors, by name. Raises HeaderError for a scaling that is not known.
    """
    hp, arch = model.hp, model.arch
    width = model.dim // hp.integer("attention.head_count")
    rope_dim = hp.integer("rope.dimension_count", hp.integer("attention.key_length", width))
    base = hp.number("rope.freq_base", 10000.0)
    found = dict(zip(("cos", "sin"), _scaled(model, max_ctx, rope_dim, base, factors), strict=True))
    if arch.local_rope_base:
        local = hp.number("rope.freq_base_swa", arch.local_rope_base)
        turns = _turns(max_ctx, _frequencies(rope_dim, local))
        found |= {"cos.local": np.cos(turns).astype(np.float32), "sin.local": np.sin(turns).astype(np.float32)}
    return found


def _frequencies(rope_dim: int, base: float) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = base ** (-np.arange(0, rope_dim, 2) / rope_dim)
    return found


def _turns(max_ctx: int, frequencies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.arange(max_ctx)[:, None] * frequencies


def _scaled(
    model: Model, max_ctx: int, rope_dim: int, base: float, factors: Mapping[str, Table]
) -> tuple[Table, Table]:
    hp, frequencies = model.hp, _frequencies(rope_dim, base)
    kind = hp.text("rope.scaling.type", "none")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise hp.error(f"{hp.name('rope.scaling.type')} is {kind!r}, known are none, linear, yarn, longrope")
    factor = hp.number("rope.scaling.factor", 0.0) or 1.0
    original = hp.integer("rope.scaling.original_context_length", hp.integer("context_length", max_ctx))
    size = 1.0
    if (own := _factors(factors, max_ctx > original)) is not None:
        if len(own) != rope_dim // 2:
            raise hp.error(f"{len(own)} rope factors for {rope_dim // 2} frequencies")
        frequencies = frequencies / own
        size = hp.number("rope.scaling.attn_factor", 1.0)
    if kind == "linear":
        frequencies = frequencies / factor
    if kind == "yarn":
        frequencies = _yarn(frequencies, rope_dim, base, factor, original)
        # latent attention has this in the scale of its scores
        size = 1.0 if model.arch.mla else 1.0 + 0.1 * math.log(factor)
    turns = _turns(max_ctx, frequencies)
    return (np.cos(turns) * size).astype(np.float32), (np.sin(turns) * size).astype(np.float32)


def _factors(factors: Mapping[str, Table], long: bool) -> Table | None:
    for name in ("rope_freqs.weight", f"rope_factors_{'long' if long else 'short'}.weight"):
        if name in factors:
            return factors[name]
    return None


def _yarn(
    frequencies: npt.NDArray[np.float64], rope_dim: int, base: float, factor: float, original: int
) -> npt.NDArray[np.float64]:
    """High frequencies stay, low ones are divided by the factor, those between are mixed."""

    def dimension(turns: float) -> float:
        return rope_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(dimension(BETA_FAST)))
    high = min(rope_dim - 1, math.ceil(dimension(BETA_SLOW)))
    ramp = np.clip((np.arange(rope_dim // 2) - low) / max(0.001, high - low), 0.0, 1.0)
    mixed: npt.NDArray[np.float64] = frequencies * (1.0 - ramp) + frequencies / factor * ramp
    return mixed
