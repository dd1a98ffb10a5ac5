"""The reference of `embed`, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.ops.case import Inputs, Truth, Truths
from kernels.ops.embed.spec import Embed
from kernels.ops.linear.reference import random_rows


def draw_embed(w: Workload, rng: np.random.Generator) -> Inputs:
    """Random rows, among them the first and the last."""
    weight = random_rows(w.format, w.n, w.k, rng)
    ids = rng.integers(0, w.n, w.m).astype(np.int32)
    ids[: w.m // 2 : 2], ids[-1] = 0, w.n - 1
    return Inputs({"ids": ids}, {"w": weight})


def embed(w: Workload, inputs: Inputs) -> Truths:
    out = inputs.weights["w"].rows(inputs.arrays["ids"].reshape(-1)) * Embed.from_workload(w).scale
    return {"out": Truth.of(out)}
