"""An element that is read or stored into only under a condition."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.tinygrad.uops import Ops


def element(array: UOp, indices: Sequence[UOp | int], condition: UOp | None = None) -> UOp:
    """array[indices] where `condition` holds and all indices are valid: a store happens nowhere else, a load finds 0.

    `array` is a placeholder, as it is after something or not. Not array[i, j.valid(condition)]: on its way through the
    array's shape tinygrad 0.14 drops what the condition says about loops that the index does not contain
    (symbolic.drop_and_clauses). The index of row.valid(row == 3) contains none; nor does that of
    column.valid(column < 2), if columns come in eights.
    """
    conditions = [] if condition is None else [condition]
    place, flat = UOp.const(0, dtypes.weakint), array
    for size, index in zip(array.shape, indices, strict=True):
        if isinstance(index, UOp) and index.get_idx() is not index:
            conditions.append(index.get_valid())
            index = index.get_idx()
        place = place * size + index
    before: list[UOp] = []
    while flat.op in (Ops.RESHAPE, Ops.AFTER):
        before += flat.src[1:] if flat.op is Ops.AFTER else ()
        flat = flat.src[0]
    flat = flat.after(*before) if before else flat
    return flat[place.valid(UOp.uprod(*conditions)) if conditions else place]
