"""Random operands of a workload and what its output must be, on the host. Knows nothing of devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.validate import Truth
from db.records import Workload
from kernels import formats, reference

# At most this many distinct weight rows, then they repeat: the float64 reference of a 128256-row weight would cost
# seconds. Prime, so that a kernel that confuses rows a power of two (or any tile size) apart is still caught.
DISTINCT_ROWS = 1021


class InputsError(ValueError):
    """There are no inputs for this workload."""


@dataclass(frozen=True)
class Inputs:
    """planes: the packed weight's arrays in slot order; x: [m, k] in the workload's dtype; truth: of out [m, n]."""

    planes: tuple[npt.NDArray[Any], ...]
    x: npt.NDArray[Any]
    truth: Truth

    @property
    def weight_nbytes(self) -> int:
        return sum(p.nbytes for p in self.planes)


def make_inputs(w: Workload, seed: int = 0) -> Inputs:
    """Inputs of a `linear` workload; equal for equal arguments. Raises InputsError for another op or dtype,
    FormatError for a k that is not whole blocks."""
    if w.op != "linear" or w.epilogue != "none":
        raise InputsError(f"no inputs for the op {w.op!r} with the epilogue {w.epilogue!r}; only linear has them")
    if w.x_dtype not in ("float32", "float16"):
        raise InputsError(f"x_dtype {w.x_dtype!r}: only float32 and float16 activations can be made")
    rng = np.random.default_rng((seed, w.n, w.k, w.m))
    rows = min(w.n, DISTINCT_ROWS)
    distinct = reference.random_blocks(w.format, rows, w.k, rng)
    x = rng.standard_normal((w.m, w.k), dtype=np.float32).astype(w.x_dtype)
    weight = reference.dequantize(distinct, w.format, (rows, w.k)).astype(np.float64)
    x64 = x.astype(np.float64)
    return Inputs(
        planes=formats.split_planes(distinct[np.arange(w.n) % rows], w.format, (w.n, w.k)),
        x=x,
        truth=Truth(
            reference=x64 @ weight.T,
            x_norms=np.linalg.norm(x64, axis=1) / np.sqrt(w.k),
            w_norms=np.linalg.norm(weight, axis=1),
            n=w.n,
        ),
    )
