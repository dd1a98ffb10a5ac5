"""Rotary position embedding of a row of columns, with an RMSNorm before it, as UOps (Su et al., "RoFormer", 2021).

The angles come as tables of cos and sin, [max_ctx, rope_dim / 2] float32. Frequency factors, scaling (linear, YaRN,
llama3, longrope) and the attention factor of YaRN are in the tables: whoever fills them applies these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.ops.kit.loops import loop, reduce_add
from kernels.ops.op import START, WEIGHT, Args, Operand, Variable
from kernels.ops.rope.spec import CacheStore


def first_position(w: Workload) -> Variable:
    """The position of the first token of an op that stores in a cache."""
    max_ctx = CacheStore.from_workload(w).max_ctx
    return Variable(START, 0, max_ctx - 1, (max_ctx - w.m) // 2)


@dataclass(frozen=True)
class Rotation:
    """Rotates the first `size` columns in pairs, by a mode of `kernels.ops.rope.spec.MODES`. Further columns are left
    as they are."""

    mode: str
    size: int

    def partner(self, column: UOp) -> tuple[UOp, UOp, UOp]:
        """Of a rotated column: the other column of its pair, the sign of its sine, and its column in the tables."""
        if self.mode == "interleaved":
            second = column - column // 2 * 2  # not column % 2, for which tinygrad would split the loop
            return column + 1 - 2 * second, second * 2 - 1, column // 2
        half = self.size // 2
        first = column < half
        return first.where(column + half, column - half), first.where(-1, 1), first.where(column, column - half)

    def turned(self, args: Args, position: UOp, column: UOp, read: Callable[[UOp], UOp]) -> UOp:
        """read(column) after the rotation for `position`."""
        unrotated = read(column)
        if self.mode == "none":
            return unrotated
        inside = None if int(column.vmax) < self.size else column < self.size
        at = column if inside is None else column.minimum(self.size - 1)
        other, sign, angle = self.partner(at)
        sine = sign.cast(dtypes.float32) * args["sin"][position, angle]
        value = read(at) * args["cos"][position, angle] + read(other) * sine
        return value if inside is None else inside.where(value, unrotated)

    def operands(self, max_ctx: int) -> tuple[Operand, ...]:
        if self.mode == "none":
            return ()
        return tuple(Operand(name, (max_ctx, self.size // 2), dtypes.float32, WEIGHT) for name in ("cos", "sin"))


def rms_scale(read: Callable[[UOp], UOp], columns: int, eps: float, number: int) -> UOp:
    """1 / sqrt(mean(x^2) + eps), where x = read(column) for `columns` columns. `number`: that of the loop over them."""
    column = loop(columns, number)
    value = read(column)
    scale: UOp = (reduce_add(value * value, column) * (1.0 / columns) + eps).sqrt().reciprocal()
    return scale
