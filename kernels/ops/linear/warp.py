"""Row kernels of fixed structure: the 32 lanes of a warp share a row, and add up by shuffles.

Opts cannot express this: GROUP ends in a store to local memory and one thread that adds serially. So the kernel takes
no opts, and the search moves through its integer parameters:
    rows    rows of the output that a warp computes together; they share its loads of x
    warps   warps of a workgroup
    words   uint32 words of a chunk that a lane reads at a time (in a format without blocks: weights)
    staged  1: the warps of a workgroup first put x into local memory (`kernels.ops.linear.shared_x`)
The lane is an AxisType.WARP range with the number -1, which stays whole and is the fastest index of a thread. The
shuffle needs both.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tinygrad import UOp

from kernels.backends import Needs
from kernels.formats import get_format
from kernels.formats.unpack import get_layout
from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import constant
from kernels.ops.kit.warp import WARP, accumulate, warp_sum
from kernels.ops.linear import shared_x
from kernels.ops.linear.dot import (
    WORDS,
    Columns,
    Index,
    RowDot,
    Step,
    Weight,
    chunk_words,
    inside,
    is_unquantized,
    row_of,
    step_sums,
)
from kernels.ops.op import Args, Params
from kernels.tinygrad.uops import AxisType, Ops

MAX_TOKENS = 8


def warp_params(r: RowDot) -> tuple[Params, ...]:
    """The parameters that a kernel can be built with, the default first. None for more than MAX_TOKENS tokens, or for
    more results than the registers of a warp hold."""
    results = math.prod(r.loops[:1]) * len(r.weights)
    return tuple(
        {"rows": rows, "warps": warps, "words": words, "staged": staged}
        for staged in ((0, 1) if shared_x.divides(r) else (0,))
        for words in WORDS
        for rows in (1, 2, 4)
        for warps in (4, 8, 2, 1)
        if rows * results <= 16
        and r.loops[0] <= MAX_TOKENS
        and all(chunk_words(f, r.k) % words == 0 for f in r.formats)
        and all(w.stop is None or w.start % rows == w.stop % rows == 0 for w in r.weights)
    )


def warp_needs(r: RowDot, params: Params) -> Needs:
    warps = params["warps"]
    return Needs(WARP * warps, shared_x.nbytes(r, warps) if params["staged"] else 0, WARP)


def steps(format: str, k: int, words: int) -> int:
    """The number of steps of a row, which the lanes of a warp share out. `words` must divide the words of a chunk."""
    if is_unquantized(format):
        return k // words
    layout = get_layout(format)
    return get_format(format).blocks(k) * layout.chunks * (layout.words // words)


def warp(r: RowDot, params: Params, args: Args, device: str) -> UOp:
    """The kernel. A warp computes `rows` rows for all tokens (the first of `r.loops`); the other loops are of the grid.
    `device` is the tinygrad device that the shuffle is written for."""
    rows, warps, words, allot = params["rows"], params["warps"], params["words"], Allotter()
    group = UOp.range(-(-r.n // (rows * warps)), 1, AxisType.GLOBAL)
    turn_numbers = [allot.number() for _ in r.formats]
    others = tuple(allot.range(size, AxisType.GLOBAL) for size in r.loops[1:])
    member = UOp.range(warps, 2, AxisType.LOCAL)
    lane = UOp.range(WARP, -1, AxisType.WARP)
    numbers = [(group * warps + member) * rows + i for i in range(rows)]
    # Indices beyond the end are clamped to the last row, which is then stored more than once. A condition on the row
    # would not do: where it leaves a single row, tinygrad 0.14 may drop it, and then every warp stores to that row.
    if r.n % (rows * warps):
        numbers = [row.minimum(r.n - 1) for row in numbers]
    if any(w.stop is not None for w in r.weights):
        args = {name: cast(UOp, _Flat(arg)) for name, arg in args.items()}
    indices = [(constant(token), *others) for token in range(r.loops[0])]
    outside = (group, *others, member, lane)
    shared = shared_x.SharedInput(r, args, indices, warps, outside, device, allot) if params["staged"] else None
    turns = {format: -(-steps(format, r.k, words) * r.summed // WARP) for format in r.formats}
    # Loops of one turn are never empty: tinygrad takes such a loop for none and always runs it.
    apart = all(w.stop is not None for w in r.weights) and min(turns.values()) > 1
    work = _Work(r, args, device, words, numbers, indices, shared, apart)
    sums: dict[_Key, UOp] = {}
    for i, (format, number) in enumerate(zip(r.formats, turn_numbers, strict=True)):
        weights = [w for w in r.weights if w.format == format]
        turn = UOp.range(turns[format], number, AxisType.REDUCE)
        if apart:  # the loop is empty for a warp whose rows are of none of these weights
            here = functools.reduce(operator.or_, (inside(w, numbers[0]) for w in weights))
            turn = UOp.range(here.where(turns[format], 0), number, AxisType.REDUCE)
        # each warp sums them in the one loop that it has, or all of them do in the first
        squares = shared is None and (apart or i == 0)
        pinned = _Pins(allot, (*outside, turn) if turn.op is Ops.RANGE else outside)
        found = work.step(weights, turn * WARP + lane, pinned, squares)
        for key, total in zip(found, accumulate(list(found.values()), turn, outside, allot), strict=True):
            sums[key] = sums[key] + total if key in sums else total
    stores = []
    for (i, row), (token, index) in itertools.product(enumerate(numbers), enumerate(indices)):
        parts = [warp_sum(sums[w.name, i, token], device) for w in r.weights]
        if r.squares is not None:
            parts.append(warp_sum(sums["", 0, token], device) if shared is None else shared.squares(token))
        stores.append(r.store(args, index, row.valid(lane.eq(0)), parts))
    return UOp.group(*stores).end(group, *others, member, lane)


_Key = tuple[str, int, int]
"""Which sum it is: (weight, row, token), or ("", 0, token) for the squares of a token."""


@dataclass(frozen=True)
class _Work:
    """What the lanes of a warp do. `rows` are the rows of the warp, `indices` the indices of its tokens. apart: each
    format has a loop of its own, and a warp runs one of these loops."""

    r: RowDot
    args: Args
    device: str
    words: int
    rows: Sequence[UOp]
    indices: Sequence[Index]
    shared: shared_x.SharedInput | None
    apart: bool

    def step(self, weights: Sequence[Weight], step: UOp, pinned: _Pins, squares: bool) -> dict[_Key, UOp]:
        """What a lane adds to each sum in a step over weights of one format. squares: also to the sums of squares."""
        r, format = self.r, weights[0].format
        a_row = steps(format, r.k, self.words)
        count = a_row * r.summed
        # indices beyond the end are clamped to the last step, where x is taken for 0
        valid = None if int(step.vmax) < count else step < count
        step = step if valid is None else step.minimum(count - 1)
        at = _position(format, step % a_row, self.words)
        sums: dict[_Key, UOp] = {}
        for token, index in enumerate(self.indices):
            if r.summed > 1:
                index = (*index, step // a_row)
            columns = Columns(self._finding_x(token, step // a_row), self.args, index, valid)
            for weight, (i, row) in itertools.product(weights, enumerate(self.rows)):
                own = _clamped(weight, row) if self.apart else row_of(r, weight, self.args, index, row)
                value = step_sums(self.args, weight, own, at, 1, columns.x, True, self.device, pinned)[0]
                sums[weight.name, i, token] = value
            if squares and r.squares is not None:
                sums["", 0, token] = columns.squares()
        return sums

    def _finding_x(self, token: int, summed: UOp) -> RowDot:
        """The same RowDot, which reads x from local memory if it is there. summed: the index in the loop of
        `r.summed`."""
        if (shared := self.shared) is None:
            return self.r
        row = summed if self.r.summed > 1 else 0
        return replace(self.r, x=lambda args, index, column: shared.x(token, row, column))


def _clamped(weight: Weight, row: UOp) -> UOp:
    """The row of `weight`, for a loop that is empty in warps without rows of it. The row is not masked: tinygrad would
    carry the condition of a mask into the length of the loop, which splits the loop in two."""
    assert weight.stop is not None
    return (row - weight.start).maximum(0).minimum(weight.stop - weight.start - 1)


class _Pins:
    """Values kept in registers of a thread. tinygrad moves a constant factor of x to the weights, of which there are
    more; it does not look into what is stored in a register."""

    def __init__(self, allot: Allotter, outside: tuple[UOp, ...]) -> None:
        self._allot, self._outside = allot, outside
        self._known: dict[UOp, UOp] = {}

    def __call__(self, value: UOp) -> UOp:
        if value not in self._known:
            register = self._allot.registers(1)
            stored = register.after(*self._outside)[0].store(value)
            self._known[value] = register.after(stored)[0].load()
        return self._known[value]


class _Flat:
    """An argument that computes its own offsets. tinygrad's get lost in loops whose length depends on another loop."""

    def __init__(self, uop: UOp) -> None:
        self._shape, self._flat = uop.shape, uop.base  # the PARAM, without its shape

    def __getitem__(self, at: UOp | tuple[UOp | int, ...]) -> UOp:
        offset: UOp | int = 0
        for size, i in zip(self._shape, at if isinstance(at, tuple) else (at,), strict=True):
            offset = offset * size + i
        return self._flat[offset]


def _position(format: str, step: UOp, words: int) -> Step:
    """Where the step with that number reads."""
    if is_unquantized(format):
        return Step(step, step, [step * words + i for i in range(words)])
    layout = get_layout(format)
    a_chunk = layout.words // words
    block, chunk = step // (layout.chunks * a_chunk), step // a_chunk % layout.chunks
    return Step(block, chunk, [step % a_chunk * words + i for i in range(words)])
