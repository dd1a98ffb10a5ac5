"""The reference of `argmax`, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.ops.case import Inputs, Truth, Truths
from kernels.ops.linear.reference import activations


def draw_argmax(w: Workload, rng: np.random.Generator) -> Inputs:
    """Logits whose largest value occurs several times. In every fourth row all values are equal."""
    logits = activations((w.m, w.n), w.x_dtype, rng)
    for row in range(w.m):
        logits[row, rng.integers(0, w.n, 3)] = logits[row].max()
        if row % 4 == 2:
            logits[row] = -1.0
    return Inputs({"logits": logits})


def argmax(w: Workload, inputs: Inputs) -> Truths:
    return {"out": Truth.exactly(inputs.arrays["logits"].reshape(w.m, w.n).argmax(1)[:, None])}
