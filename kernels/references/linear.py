"""What `linear` must compute: the dequantised weight times x, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels import reference
from kernels.formats import get_format, split_planes
from kernels.references.case import Array, Case, Doubles, InputsError, Truth
from kernels.unpack import tables

# At most this many distinct weight rows, then they repeat: the float64 reference of a 128256-row weight would cost
# seconds. Prime, so that a kernel that confuses rows a power of two (or any tile size) apart is still caught.
DISTINCT_ROWS = 1021


def activations(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    """Normal values. Raises InputsError for a dtype that activations do not have."""
    if dtype not in ("float32", "float16"):
        raise InputsError(f"x_dtype {dtype!r}: only float32 and float16 activations can be made")
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)


def distinct_rows(format: str, n: int, k: int, rng: np.random.Generator) -> tuple[Array, Doubles]:
    """Random rows of a weight, uint8 [r, row_nbytes] and float64 [r, k], r the smaller of n and DISTINCT_ROWS."""
    rows = min(n, DISTINCT_ROWS)
    raw = reference.random_blocks(format, rows, k, rng)
    return raw, reference.dequantize(raw, format, (rows, k)).astype(np.float64)


def planes(prefix: str, format: str, raw: Array, shape: tuple[int, int]) -> dict[str, Array]:
    """The operands of a weight [n, k] whose rows repeat `raw`."""
    whole = split_planes(raw[np.arange(shape[0]) % len(raw)], format, shape)
    arrays = zip(get_format(format).arrays, (*whole, *tables.arrays(format)), strict=True)
    return {f"{prefix}.{a.name}": content for a, content in arrays}


def added(w: Workload, case: Case, rng: np.random.Generator) -> Case:
    """The case with the terms of the workload's epilogue: bias [n], residual [m, n]."""
    if w.epilogue == "none":
        return case
    terms: dict[str, Array] = {}
    if "bias" in w.epilogue:
        terms["bias"] = rng.standard_normal(w.n, dtype=np.float32)
    if "add" in w.epilogue:
        terms["residual"] = activations((w.m, w.n), w.out_dtype, rng)
    truth = case.truths["out"]
    product, scale = truth.rows(0, w.m)
    reference = product + sum(t.astype(np.float64) for t in terms.values())
    # a sum is as exact as its larger term
    whole = Truth(reference, np.ones(w.m), np.maximum(scale.max(0), 1.0), w.n)
    return Case({**case.arrays, **terms}, {"out": whole})


def linear(w: Workload, rng: np.random.Generator) -> Case:
    raw, weight = distinct_rows(w.format, w.n, w.k, rng)
    x = activations((w.m, w.k), w.x_dtype, rng)
    x64 = x.astype(np.float64)
    truth = Truth(
        reference=x64 @ weight.T,
        row_scale=np.linalg.norm(x64, axis=1) / np.sqrt(w.k),
        column_scale=np.linalg.norm(weight, axis=1),
        n=w.n,
    )
    return added(w, Case({**planes("w", w.format, raw, (w.n, w.k)), "x": x}, {"out": truth}), rng)
