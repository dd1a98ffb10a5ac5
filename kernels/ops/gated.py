"""A store that happens only under a condition."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes
from tinygrad.uop.ops import Ops


def element(array: UOp, indices: Sequence[UOp | int], condition: UOp) -> UOp:
    """array[indices], into which a store happens only where `condition` holds.

    Not array[i, j.valid(condition)]: on its way through the array's shape tinygrad 0.14 drops what the condition says
    about loops that the index does not contain (symbolic.drop_and_clauses), and row.valid(row == 3) contains none.
    """
    place, flat = UOp.const(0, dtypes.weakint), array
    for size, index in zip(array.shape, indices, strict=True):
        place = place * size + index
    while flat.op is Ops.RESHAPE:
        flat = flat.src[0]
    return flat[place.valid(condition)]
