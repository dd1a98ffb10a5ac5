"""How far a kernel may be from the float64 reference: one table by (variant, dtype of the output)."""

from __future__ import annotations

from db.records import Workload

# relative error ||out - ref|| / ||ref||: float32 sums of a few thousand products stay near 1e-6, and a float16 output
# is rounded to 11 bits once
_LIMITS = {"float32": 1e-5, "float16": 1e-3}
# variants that compute with less than float32; none yet
_VARIANTS: dict[tuple[str, str], float] = {}


def tolerance(w: Workload, variant: str) -> float:
    """The relative error that a variant's result may have."""
    return _VARIANTS.get((variant, w.out_dtype), _LIMITS[w.out_dtype])
