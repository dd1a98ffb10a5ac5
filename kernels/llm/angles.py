"""Makes a model's tables of rotation angles: cos and sin of position * frequency, with the scaling of the GGUF file.

Facts of llama.cpp (src/llama-model.cpp, ggml's rope): linear scaling, YaRN (Peng et al., 2023), and a tensor of factors
for each frequency (llama 3's rope_freqs, phi 3's long and short factors).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kernels.models.model import Model
from kernels.models.rope import RopeScaling, rope_base, rope_dim

Table = npt.NDArray[np.float32]


def tables(model: Model, max_ctx: int, factors: Mapping[str, Table]) -> dict[str, Table]:
    """cos and sin [max_ctx, rope_dim / 2], under the labels that the plan gives them. If window layers rotate by other
    angles, their tables are "cos.local" and "sin.local".

    factors: the file's tensors of frequency factors, by name. Raises HeaderError for an unknown scaling, an invalid
    base, and factors that are of another length, zero or not finite.
    """
    hp, arch = model.hp, model.arch
    width, scaling = rope_dim(hp), RopeScaling.of(hp, arch.mla)
    if not arch.rotates:
        shape = max_ctx, width // 2
        return {"cos": np.ones(shape, np.float32), "sin": np.zeros(shape, np.float32)}
    own = _factors(model, factors, max_ctx > (scaling.original or max_ctx), width // 2)
    found = dict(zip(("cos", "sin"), _table(max_ctx, width, rope_base(hp), scaling, own), strict=True))
    if arch.local_rope_base:
        of_local = scaling if arch.local_scaling else scaling.off
        of_local = of_local if arch.local_factor else replace(of_local, size=1.0)
        local = _table(max_ctx, width, arch.local_rope_base, of_local, own)
        found |= zip(("cos.local", "sin.local"), local, strict=True)
    return found


def _table(max_ctx: int, width: int, base: float, scaling: RopeScaling, factors: Table | None) -> tuple[Table, Table]:
    frequencies: npt.NDArray[np.float64] = base ** (-np.arange(0, width, 2) / width)
    if factors is not None:
        frequencies = frequencies / factors
    if scaling.kind == "yarn":
        kept = _kept(width, base, scaling.original or max_ctx, scaling)
        frequencies = frequencies * kept + frequencies / scaling.factor * (1.0 - kept)
    else:
        frequencies = frequencies / scaling.factor
    turns = np.arange(max_ctx)[:, None] * frequencies
    return (np.cos(turns) * scaling.size).astype(np.float32), (np.sin(turns) * scaling.size).astype(np.float32)


def _factors(model: Model, factors: Mapping[str, Table], long: bool, count: int) -> Table | None:
    for name in ("rope_freqs.weight", f"rope_factors_{'long' if long else 'short'}.weight"):
        if name in factors:
            found = factors[name]
            if found.shape != (count,):
                raise model.hp.error(f"{name} has the shape {found.shape}, expected ({count},)")
            if not (np.isfinite(found) & (found != 0)).all():
                bad = found[~np.isfinite(found) | (found == 0)][0]
                raise model.hp.error(
                    f"{name} contains {bad}, but frequencies are divided by it: convert the model again"
                )
            return found
    return None


def _kept(rope_dim: int, base: float, original: int, scaling: RopeScaling) -> npt.NDArray[np.float64]:
    """The share of each frequency that YaRN leaves unscaled: 1 for high frequencies, 0 for low ones."""

    def dimension(turns: float) -> float:
        return rope_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(dimension(scaling.fast)))
    high = min(rope_dim - 1, math.ceil(dimension(scaling.slow)))
    kept: npt.NDArray[np.float64] = 1 - np.clip((np.arange(rope_dim // 2) - low) / max(0.001, high - low), 0.0, 1.0)
    return kept
