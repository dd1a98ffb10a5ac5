"""What `rmsnorm`, `rmsnorm_add`, `embed` and `argmax` must compute, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.references.case import Array, Inputs, Truth, Truths
from kernels.references.linear import activations, random_rows


def draw_rmsnorm(w: Workload, rng: np.random.Generator) -> Inputs:
    """Rows of several sizes, zeros among them."""
    heads = int(dict(w.extra).get("heads", 1))
    # not so small that a device without halves, which takes their denormals for zero, is wrong
    small = 1e-3 if w.x_dtype == "float32" else 0.1
    sizes = np.array([1.0, 30.0, small, 0.0])[np.arange(w.m) % 4, None]
    x = (activations((w.m, w.n), w.x_dtype, rng) * sizes).astype(w.x_dtype)
    arrays: dict[str, Array] = {"weight": rng.uniform(0.5, 2.0, w.n // heads).astype(np.float32), "x": x}
    if w.op == "rmsnorm_add":
        arrays["residual"] = activations((w.m, w.n), w.out_dtype, rng)
    return Inputs(arrays)


def rmsnorm(w: Workload, inputs: Inputs) -> Truths:
    extra = dict(w.extra)
    parts = inputs.doubles("x").reshape(w.m, int(extra.get("heads", 1)), -1)
    normed = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + float(extra["eps"])) * inputs.doubles("weight")
    out = normed.reshape(w.m, w.n)
    if w.op == "rmsnorm_add":
        out = out + inputs.doubles("residual").reshape(w.m, w.n)
    return {"out": Truth.of(out)}


def draw_embed(w: Workload, rng: np.random.Generator) -> Inputs:
    """Any rows, the first and the last among them."""
    weight = random_rows(w.format, w.n, w.k, rng)
    ids = rng.integers(0, w.n, w.m).astype(np.int32)
    ids[: w.m // 2 : 2], ids[-1] = 0, w.n - 1
    return Inputs({"ids": ids}, {"w": weight})


def embed(w: Workload, inputs: Inputs) -> Truths:
    out = inputs.weights["w"].rows(inputs.arrays["ids"].reshape(-1)) * float(dict(w.extra).get("scale", "1.0"))
    return {"out": Truth.of(out)}


def draw_argmax(w: Workload, rng: np.random.Generator) -> Inputs:
    """Logits with equal largest ones; every fourth row has but one value."""
    logits = activations((w.m, w.n), w.x_dtype, rng)
    for row in range(w.m):
        logits[row, rng.integers(0, w.n, 3)] = logits[row].max()
        if row % 4 == 2:
            logits[row] = -1.0
    return Inputs({"logits": logits})


def argmax(w: Workload, inputs: Inputs) -> Truths:
    return {"out": Truth.exactly(inputs.arrays["logits"].reshape(w.m, w.n).argmax(1)[:, None])}
