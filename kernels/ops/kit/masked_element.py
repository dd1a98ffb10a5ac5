"""An element that is read, or stored into, only under a condition."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from kernels.ops.kit.loops import constant
from kernels.tinygrad.uops import Ops


def masked_element(array: UOp, indices: Sequence[UOp | int], condition: UOp | None = None) -> UOp:
    """array[indices] where `condition` holds and all indices are valid. Elsewhere a store does nothing and a load gives
    0. `array` is a placeholder, or a placeholder `after` something.

    array[i, j.valid(condition)] would not do: tinygrad 0.14 moves an index through the array's shape, and on the way
    drops what the condition says about loops that the index does not contain (symbolic.drop_and_clauses). The index
    row.valid(row == 3) contains no such loop; nor does column.valid(column < 2) where columns come in eights.
    """
    conditions = [] if condition is None else [condition]
    place, flat = constant(0), array
    for size, at in zip(array.shape, indices, strict=True):
        if isinstance(at, UOp) and at.get_idx() is not at:
            conditions.append(at.get_valid())
            at = at.get_idx()
        place = place * size + at
    before: list[UOp] = []
    while flat.op in (Ops.RESHAPE, Ops.AFTER):
        before += flat.src[1:] if flat.op is Ops.AFTER else ()
        flat = flat.src[0]
    flat = flat.after(*before) if before else flat
    return flat[place.valid(UOp.uprod(*conditions)) if conditions else place]
