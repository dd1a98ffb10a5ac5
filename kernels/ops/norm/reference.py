"""The references of `rmsnorm` and `rmsnorm_add`, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.ops.case import Array, Inputs, Truth, Truths
from kernels.ops.linear.reference import activations
from kernels.ops.norm.spec import RmsNorm


def draw_rmsnorm(w: Workload, rng: np.random.Generator) -> Inputs:
    """Rows of large, ordinary and small values, and rows of zeros."""
    heads = RmsNorm.from_workload(w).heads
    # devices without halves take float16 denormals for zero, so that smaller values would be wrong there
    small = 1e-3 if w.x_dtype == "float32" else 0.1
    sizes = np.array([1.0, 30.0, small, 0.0])[np.arange(w.m) % 4, None]
    x = (activations((w.m, w.n), w.x_dtype, rng) * sizes).astype(w.x_dtype)
    arrays: dict[str, Array] = {"weight": rng.uniform(0.5, 2.0, w.n // heads).astype(np.float32), "x": x}
    if w.op == "rmsnorm_add":
        arrays["residual"] = activations((w.m, w.n), w.out_dtype, rng)
    return Inputs(arrays)


def rmsnorm(w: Workload, inputs: Inputs) -> Truths:
    s = RmsNorm.from_workload(w)
    parts = inputs.doubles("x").reshape(w.m, s.heads, -1)
    normed = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + s.eps) * inputs.doubles("weight")
    out = normed.reshape(w.m, w.n)
    if w.op == "rmsnorm_add":
        out = out + inputs.doubles("residual").reshape(w.m, w.n)
    return {"out": Truth.of(out)}
