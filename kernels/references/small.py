"""What `rmsnorm`, `rmsnorm_add`, `embed` and `argmax` must compute, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.references.case import Array, Case, Truth
from kernels.references.linear import activations, distinct_rows, planes


def rmsnorm(w: Workload, rng: np.random.Generator) -> Case:
    """Rows of several sizes, zeros among them."""
    extra = dict(w.extra)
    heads, eps = int(extra.get("heads", 1)), float(extra["eps"])
    # not so small that a device without halves, which takes their denormals for zero, is wrong
    small = 1e-3 if w.x_dtype == "float32" else 0.1
    sizes = np.array([1.0, 30.0, small, 0.0])[np.arange(w.m) % 4, None]
    x = (activations((w.m, w.n), w.x_dtype, rng) * sizes).astype(w.x_dtype)
    weight = rng.uniform(0.5, 2.0, w.n // heads).astype(np.float32)
    parts = x.astype(np.float64).reshape(w.m, heads, -1)
    normed = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + eps) * weight
    arrays: dict[str, Array] = {"weight": weight, "x": x}
    out = normed.reshape(w.m, w.n)
    if w.op == "rmsnorm_add":
        arrays["residual"] = activations((w.m, w.n), w.out_dtype, rng)
        out = out + arrays["residual"].astype(np.float64)
    return Case(arrays, {"out": Truth.of(out)})


def embed(w: Workload, rng: np.random.Generator) -> Case:
    """Any rows, the first and the last among them."""
    raw, weight = distinct_rows(w.format, w.n, w.k, rng)
    ids = rng.integers(0, w.n, w.m).astype(np.int32)
    ids[: w.m // 2 : 2], ids[-1] = 0, w.n - 1
    out = weight[ids % len(weight)] * float(dict(w.extra).get("scale", "1.0"))
    return Case({**planes("w", w.format, raw, (w.n, w.k)), "ids": ids}, {"out": Truth.of(out)})


def argmax(w: Workload, rng: np.random.Generator) -> Case:
    """Logits with equal largest ones; every fourth row has but one value."""
    logits = activations((w.m, w.n), w.x_dtype, rng)
    for row in range(w.m):
        logits[row, rng.integers(0, w.n, 3)] = logits[row].max()
        if row % 4 == 2:
            logits[row] = -1.0
    return Case({"logits": logits}, {"out": Truth.exactly(logits.argmax(1)[:, None])})
