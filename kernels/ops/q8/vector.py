"""The vector functions of the prelude, as UOps. Under UPCAST they take and give vectors.

Operators that tinygrad would take apart into lanes are C text here too: clang does not join the lanes of `a | b << 4`
again, and joining others takes it seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.ops.kit.loops import constant
from kernels.tinygrad.prelude import FUNCTIONS
from kernels.tinygrad.uops import AxisType, DType, Ops

uint32, int32, float32 = dtypes.uint32, dtypes.int32, dtypes.float32


def outer(size: int, number: int) -> UOp:
    """A loop of that number over results, or the constant 0 where `size` is 1."""
    return UOp.range(size, number) if size > 1 else constant(0)


MOST_SLICES = 64


def slice_counts(size: int) -> tuple[int, ...]:
    """The numbers of equal slices that a loop can be cut into."""
    return tuple(count for count in range(1, MOST_SLICES + 1) if size % count == 0)


def sliced(size: int, slices: int) -> tuple[tuple[UOp, UOp], UOp]:
    """A loop in slices, which are numbered by what a host's threads are told: its ranges, 0 and 1, and the index."""
    which = UOp.range(slices, 0, AxisType.THREAD) if slices > 1 else constant(0)
    within = outer(size // slices, 1)
    return (which, within), which * (size // slices) + within


def ranges(*loops: UOp) -> tuple[UOp, ...]:
    """Those of `loops` that are ranges."""
    return tuple(at for at in loops if at.op is Ops.RANGE)


def text(c: str, dtype: DType, *operands: UOp) -> UOp:
    """An expression of C; `{0}` is the first operand."""
    return UOp(Ops.CUSTOM, src=operands, arg=c, dtype=dtype)


def call(function: str, dtype: DType, *operands: UOp) -> UOp:
    """A function of the prelude."""
    assert function in FUNCTIONS, function
    return text(f"{function}({', '.join(f'{{{i}}}' for i in range(len(operands)))})", dtype, *operands)


def load(rows: UOp, lane: UOp) -> UOp:
    """Item `lane` of those from the place `rows` on, loaded as a vector where `lane` is one."""
    return call("v_load", rows.dtype, rows, lane.cast(int32))


def half(bits: UOp) -> UOp:
    """uint16 bits of a float16 as float32."""
    return call("v_half", float32, bits)


def field(word: UOp, shift: int, mask: int) -> UOp:
    """The bits `mask` of each byte of a uint32, after a shift to the right."""
    return text(
        f"({{0}} >> {shift} & {mask * 0x01010101:#x}u)" if shift else f"({{0}} & {mask * 0x01010101:#x}u)", uint32, word
    )


def joined(low: UOp, high: UOp, shift: int) -> UOp:
    """`low | high << shift`."""
    return text(f"({{0}} | {{1}} << {shift})", uint32, low, high)


def as_float(value: UOp) -> UOp:
    """A small integer as float32."""
    return call("v_float", float32, value)


def byte(word: UOp, i: int) -> UOp:
    """Byte i of a uint32 as float32."""
    return as_float(text(f"({{0}} >> {8 * i} & 255u)" if i else "({0} & 255u)", uint32, word))


def dot(function: str, words: Sequence[UOp], x: UOp) -> UOp:
    """The sum of the bytes of four words times those of the four words of x, int32."""
    return call(function, int32, *words, x)
