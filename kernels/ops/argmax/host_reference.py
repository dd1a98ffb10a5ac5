"""The references of `host_peaks` and `host_argmax`."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.ops.argmax.host_spec import HostArgMax, HostPeaks
from kernels.ops.argmax.reference import draw_argmax
from kernels.ops.case import Array, Inputs, Truth, Truths


def _peaks(logits: Array, s: HostPeaks | HostArgMax) -> Array:
    starts = np.minimum(np.arange(s.blocks) * s.block, s.n - s.block)
    return np.stack([logits[:, start : start + s.block].max(1) for start in starts], axis=1).astype(np.float32)


def peaks(w: Workload, inputs: Inputs) -> Truths:
    return {"peaks": Truth.of(_peaks(inputs.arrays["logits"].reshape(w.m, w.n), HostPeaks.from_workload(w)))}


def draw_host_argmax(w: Workload, rng: np.random.Generator) -> Inputs:
    """Logits as those of `argmax`, and their peaks."""
    logits = draw_argmax(w, rng).arrays["logits"]
    return Inputs({"logits": logits, "peaks": _peaks(logits, HostArgMax.from_workload(w))})
