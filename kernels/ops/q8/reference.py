"""The references of the ops over quantised activations, in float64.

Such an op computes what the op of its name computes over floats, where x is the values of the quants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from db.records import Workload
from kernels.formats import get_format, split_planes
from kernels.formats.tiles import tile_planes
from kernels.ops.case import Array, Doubles, Inputs, PackedRows, Truth, Truths
from kernels.ops.linear.reference import activations
from kernels.ops.q8.spec import BLOCK, HALF_SUM, SCALE, SUM, WORDS, Quantise, spec_of

_HALF_A_STEP = 0.5001  # float32 may round to the other side of a tie


@dataclass(frozen=True)
class TiledRows(PackedRows):
    """A weight of `matrices` stacked matrices, whose planes are tiled."""

    matrices: int = 1

    def planes(self, name: str) -> dict[str, Array]:
        whole = split_planes(self.raw[np.arange(self.n) % len(self.raw)], self.format, (self.n, self.k))
        tiled = tile_planes(self.format, whole, self.matrices)
        return {f"{name}.{p.name}": array for p, array in zip(get_format(self.format).planes, tiled, strict=True)}


def words_of(x: Array) -> Array:
    """Rows of float32 [..., k], quantised: int32 [rows, k / BLOCK, WORDS]."""
    blocks = x.astype(np.float32).reshape(-1, x.shape[-1] // BLOCK, BLOCK)
    top = np.abs(blocks).max(2, keepdims=True)
    quants = np.rint(blocks * np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)).astype(np.int8)
    words = np.zeros((*blocks.shape[:2], WORDS), np.int32)
    words[..., :SCALE] = quants.view(np.int32)
    floats, scale = words.view(np.float32), top[..., 0] / np.float32(127)
    floats[..., SCALE] = scale
    floats[..., SUM] = scale * quants.sum(2, dtype=np.float32)
    floats[..., HALF_SUM] = scale * quants[..., : BLOCK // 2].sum(2, dtype=np.float32)
    return words


def values_of(words: Array) -> Doubles:
    """The values of quantised rows [rows, blocks, WORDS]: float64 [rows, blocks * BLOCK]."""
    scales = np.ascontiguousarray(words[..., SCALE]).view(np.float32).astype(np.float64)
    values: Doubles = (_quants(words) * scales[..., None]).reshape(len(words), -1)
    return values


def _quants(words: Array) -> Doubles:
    """float64 [..., BLOCK] of words [..., WORDS]."""
    return np.ascontiguousarray(words[..., :SCALE]).view(np.int8).astype(np.float64)


def quantised(w: Workload, inputs: Inputs) -> Inputs:
    """Inputs of the op over floats, as those over quantised activations and tiled weights."""
    arrays, matrices = dict(inputs.arrays), dict(w.extra).get("heads", dict(w.extra).get("experts", 1))
    if "x" in arrays:
        arrays["x"] = words_of(arrays["x"])
    weights = {name: TiledRows(r.format, r.raw, r.n, r.k, int(str(matrices))) for name, r in inputs.weights.items()}
    return replace(inputs, arrays=arrays, weights=weights)


def dequantised(w: Workload, inputs: Inputs) -> Inputs:
    """Inputs of the op over quantised activations, as those over floats."""
    if "x" not in inputs.arrays:
        return inputs
    words = inputs.arrays["x"]
    x = values_of(words.reshape(-1, *words.shape[-2:]))
    used = dict(w.extra).get("used") if w.op == "expert_linear" and dict(w.extra)["form"] == "down" else None
    return replace(inputs, arrays={**inputs.arrays, "x": x.reshape(w.m, used, -1) if isinstance(used, int) else x})


def draw_quantise(w: Workload, rng: np.random.Generator) -> Inputs:
    """Rows of different sizes, among them one of zeros, and one whose numbers are all positive."""
    s = spec_of(Quantise, w)
    x = activations((w.m * s.rows, s.x_row), w.x_dtype, rng) * rng.choice([1e-3, 1.0, 50.0], (w.m * s.rows, 1))
    x[1::4] = np.abs(x[1::4])
    x[-1, :BLOCK] = 0
    arrays = {"x": x.astype(w.x_dtype)}
    return Inputs(arrays if s.eps is None else {**arrays, "norm": rng.uniform(0.5, 1.5, s.n).astype(np.float32)})


def quantise(w: Workload, inputs: Inputs) -> Truths:
    """The words of a block count as how far its four values are from x beyond half a step, its scale, and how far its
    two sums are from those of its own quants."""
    s, x = spec_of(Quantise, w), inputs.doubles("x")
    values = x.reshape(w.m * s.rows, s.x_row)[:, : s.n]
    if s.eps is not None:
        values = values / np.sqrt(np.square(values).mean(1, keepdims=True) + s.eps) * inputs.doubles("norm")
    blocks = values.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(1) / 127
    reference = np.zeros((len(blocks), WORDS))
    reference[:, SCALE] = scales

    def read(words: Array, which: slice) -> Doubles:
        found, quants = np.zeros(words.shape), _quants(words)
        found[:, SCALE:] = np.ascontiguousarray(words[:, SCALE:]).view(np.float32)
        scale = found[:, SCALE].copy()
        beyond = np.abs(quants * scale[:, None] - blocks[which]) - _HALF_A_STEP * scale[:, None]
        found[:, :SCALE] = np.maximum(np.where(quants < -127, np.inf, beyond), 0).reshape(len(words), SCALE, 4).max(2)
        for word, count in ((SUM, BLOCK), (HALF_SUM, BLOCK // 2)):
            found[:, word] -= (scale.astype(np.float32) * quants[:, :count].sum(1).astype(np.float32)).astype(
                np.float64
            )
        return found

    return {"out": Truth(reference, np.maximum(scales, 1e-30), np.ones(WORDS), WORDS, read)}
