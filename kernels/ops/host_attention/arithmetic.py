"""Arithmetic that a C compiler turns into vector instructions: no call, no table, no sum across lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

# the polynomial of 2^x for x from -1/2 to 1/2: relative error below 2e-7
_COEFFICIENTS = (1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0)
_MANTISSA_BITS, _BIAS = 23, 127


def exp2(x: UOp) -> UOp:
    """2^x for x <= 0; at least 2^-126."""
    x = x.maximum(-126.0)
    whole = (x - 0.5).cast(dtypes.int32)  # rounds to nearest, as x is not positive
    part = x - whole.cast(dtypes.float32)
    value = UOp.const(_COEFFICIENTS[0], dtypes.float32)
    for coefficient in _COEFFICIENTS[1:]:
        value = value * part + coefficient
    found: UOp = value * ((whole + _BIAS) << _MANTISSA_BITS).bitcast(dtypes.float32)
    return found


def tree(join: Callable[[UOp, UOp], UOp], values: Sequence[UOp]) -> UOp:
    """All values joined in pairs, and the results in pairs again: few steps wait for each other."""
    while len(values) > 1:
        odd = values[len(values) & ~1 :]
        values = [*(join(a, b) for a, b in zip(values[::2], values[1::2], strict=False)), *odd]
    return values[0]
