"""How far the results of a kernel may be from the float64 reference. It depends on the dtype of the output, unless the
op has a limit of its own for a variant."""

from __future__ import annotations

from db.records import Workload
from kernels.ops.registry import KernelError, get_op

# The limits are relative errors ||out - ref|| / ||ref||. Float32 sums of a few thousand products stay near 1e-6, and a
# float16 output is rounded to 11 bits once.
_LIMITS = {"float32": 1e-5, "float16": 1e-3}


def tolerance(w: Workload, variant: str) -> float:
    """The largest relative error that the result of a variant may have. Raises KernelError for an op or dtype without
    kernels."""
    found = get_op(w).tolerances.get((variant, w.out_dtype), _LIMITS.get(w.out_dtype))
    if found is None:
        raise KernelError(f"no kernels for results of {w.out_dtype!r}; there are {', '.join(_LIMITS)}")
    return found
