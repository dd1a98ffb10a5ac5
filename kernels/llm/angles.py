"""A model's tables of rope angles: cos and sin of position * frequency, with what a GGUF says of scaling.

Facts of llama.cpp (src/llama-model.cpp, ggml's rope): linear scaling, YaRN (Peng et al., 2023), and factors for each
frequency from a tensor (llama 3's rope_freqs; phi 3's long and short ones).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kernels.models.model import Model
from kernels.models.rope import RopeScaling

Table = npt.NDArray[np.float32]


def tables(model: Model, max_ctx: int, factors: Mapping[str, Table]) -> dict[str, Table]:
    """cos and sin [max_ctx, rope_dim / 2], by the names that launches take them; `.local` where there are such layers.

    factors: the file's tensors of frequency factors, by name. Raises HeaderError for a scaling that is not known,
    factors of another width, or a base of frequencies that is none.
    """
    hp, arch = model.hp, model.arch
    width = model.dim // hp.integer("attention.head_count")
    rope_dim = hp.integer("rope.dimension_count", hp.integer("attention.key_length", width))
    base = _base(model, "rope.freq_base", 10000.0)
    found = dict(zip(("cos", "sin"), _scaled(model, max_ctx, rope_dim, base, factors), strict=True))
    if arch.local_rope_base:
        local = _base(model, "rope.freq_base_swa", arch.local_rope_base)
        turns = _turns(max_ctx, _frequencies(rope_dim, local))
        found |= {"cos.local": np.cos(turns).astype(np.float32), "sin.local": np.sin(turns).astype(np.float32)}
    return found


def _base(model: Model, key: str, default: float) -> float:
    base = model.hp.number(key, default)
    if base <= 1:
        raise model.hp.error(f"{model.hp.name(key)} is {base}, expected a number above 1")
    return base


def _frequencies(rope_dim: int, base: float) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = base ** (-np.arange(0, rope_dim, 2) / rope_dim)
    return found


def _turns(max_ctx: int, frequencies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.arange(max_ctx)[:, None] * frequencies


def _scaled(
    model: Model, max_ctx: int, rope_dim: int, base: float, factors: Mapping[str, Table]
) -> tuple[Table, Table]:
    scaling, frequencies = RopeScaling.of(model.hp, model.arch.mla), _frequencies(rope_dim, base)
    original = scaling.original or max_ctx
    if (own := _factors(factors, max_ctx > original)) is not None:
        if len(own) != rope_dim // 2:
            raise model.hp.error(f"{len(own)} rope factors for {rope_dim // 2} frequencies")
        frequencies = frequencies / own
    if scaling.kind == "yarn":
        kept = _kept(rope_dim, base, original, scaling)
        frequencies = frequencies * kept + frequencies / scaling.factor * (1.0 - kept)
    else:
        frequencies = frequencies / scaling.factor
    turns = _turns(max_ctx, frequencies)
    return (np.cos(turns) * scaling.size).astype(np.float32), (np.sin(turns) * scaling.size).astype(np.float32)


def _factors(factors: Mapping[str, Table], long: bool) -> Table | None:
    for name in ("rope_freqs.weight", f"rope_factors_{'long' if long else 'short'}.weight"):
        if name in factors:
            return factors[name]
    return None


def _kept(rope_dim: int, base: float, original: int, scaling: RopeScaling) -> npt.NDArray[np.float64]:
    """How much of each frequency YaRN leaves as it is: of high ones all, of low ones nothing."""

    def dimension(turns: float) -> float:
        return rope_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(dimension(scaling.fast)))
    high = min(rope_dim - 1, math.ceil(dimension(scaling.slow)))
    kept: npt.NDArray[np.float64] = 1 - np.clip((np.arange(rope_dim // 2) - low) / max(0.001, high - low), 0.0, 1.0)
    return kept
