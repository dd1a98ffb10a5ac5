"""Row kernels with explicit structure: a warp of 32 lanes shares a row and sums across lanes with shuffles.

Opts cannot say this: GROUP ends in a store to shared memory and one thread that adds serially. So the structure is
fixed here, opts are (), and the search moves through the integer parameters instead:
    rows    output rows that one warp computes together, sharing its loads of x
    warps   warps in a thread block
    words   uint32 words of a chunk that a lane reads at a time (of a plain format: weights)
    staged  1: the block's warps put x into local memory first, its norm's weight and squares included (see `stage`)
The lane is an AxisType.WARP range numbered -1: it stays whole and is the fastest thread index, which the shuffle needs.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tinygrad import UOp, dtypes

from kernels.backends import Needs
from kernels.formats import get_format
from kernels.formats.unpack import get_layout
from kernels.ops.kit.warp_sum import WARP, accumulate, warp_sum
from kernels.ops.linear import shared_x
from kernels.ops.linear.dot import (
    WORDS,
    Columns,
    Index,
    Rows,
    Step,
    Weight,
    chunk_words,
    inside,
    is_plain,
    row_of,
    step_sums,
)
from kernels.ops.op import Args, Params
from kernels.tinygrad.uops import AddrSpace, AxisType, Ops

MAX_TOKENS = 8
_PINS = 700  # the first slot of registers; tinygrad numbers its own from 0


def warp_params(r: Rows) -> tuple[Params, ...]:
    """Those that a kernel allows, the default first; none where results are too many for a warp's registers."""
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


def warp_needs(r: Rows, params: Params) -> Needs:
    warps = params["warps"]
    return Needs(WARP * warps, shared_x.nbytes(r, warps) if params["staged"] else 0, WARP)


def steps(format: str, k: int, words: int) -> int:
    """Steps of a row, which the lanes of a warp share out; `words` must divide the words of a chunk."""
    if is_plain(format):
        return k // words
    layout = get_layout(format)
    return get_format(format).blocks(k) * layout.chunks * (layout.words // words)


def warp(r: Rows, params: Params, args: Args, device: str) -> UOp:
    """The kernel: one warp for `rows` rows and all tokens, the first of the loops; the others are of the grid.
    `device` is the tinygrad device that the shuffle is written for."""
    rows, warps, words = params["rows"], params["warps"], params["words"]
    group = UOp.range(-(-r.n // (rows * warps)), 1, AxisType.GLOBAL)
    others = tuple(UOp.range(size, 8 + i, AxisType.GLOBAL) for i, size in enumerate(r.loops[1:]))
    member = UOp.range(warps, 2, AxisType.LOCAL)
    lane = UOp.range(WARP, -1, AxisType.WARP)
    numbers = [(group * warps + member) * rows + i for i in range(rows)]
    # Rows past the last are the last one again, and store what it stores. Not a condition on the row: tinygrad 0.14 may
    # drop one from a store where it leaves a single row, and then every warp stores to that.
    if r.n % (rows * warps):
        numbers = [row.minimum(r.n - 1) for row in numbers]
    if any(w.stop is not None for w in r.weights):
        args = {name: cast(UOp, _Flat(arg)) for name, arg in args.items()}
    indices = [(UOp.const(token, dtypes.weakint), *others) for token in range(r.loops[0])]
    outside = (group, *others, member, lane)
    shared = shared_x.Stage(r, args, indices, warps, outside, device) if params["staged"] else None
    turns = {format: -(-steps(format, r.k, words) * r.summed // WARP) for format in r.formats}
    # A loop of one turn is never empty: tinygrad takes it for no loop and runs it.
    apart = all(w.stop is not None for w in r.weights) and min(turns.values()) > 1
    work = _Work(r, args, device, words, numbers, indices, shared, apart)
    sums: dict[_Key, UOp] = {}
    for i, format in enumerate(r.formats):
        weights = [w for w in r.weights if w.format == format]
        turn = UOp.range(turns[format], 3 + 10 * i, AxisType.REDUCE)
        if apart:  # the loop is empty for a warp whose rows are of none of these weights
            here = functools.reduce(operator.or_, (inside(w, numbers[0]) for w in weights))
            turn = UOp.range(here.where(turns[format], 0), 3 + 10 * i, AxisType.REDUCE)
        # each warp sums them in the one loop that it has, or all of them do in the first
        squares = shared is None and (apart or i == 0)
        pinned = _Pins((*outside, turn) if turn.op is Ops.RANGE else outside)
        found = work.step(weights, turn * WARP + lane, pinned, squares)
        for key, total in zip(found, accumulate(list(found.values()), turn, outside, i), strict=True):
            sums[key] = sums[key] + total if key in sums else total
    stores = []
    for (i, row), (token, index) in itertools.product(enumerate(numbers), enumerate(indices)):
        parts = [warp_sum(sums[w.name, i, token], device) for w in r.weights]
        if r.squares is not None:
            parts.append(warp_sum(sums["", 0, token], device) if shared is None else shared.squares(token))
        stores.append(r.store(args, index, row.valid(lane.eq(0)), parts))
    return UOp.group(*stores).end(group, *others, member, lane)


_Key = tuple[str, int, int]
"""What is summed: (weight, row, token), or the squares of a token, ("", 0, token)."""


@dataclass(frozen=True)
class _Work:
    """What the lanes of a warp do: `rows` are its rows, `indices` its tokens'; apart: formats have loops of their own,
    of which a warp runs one."""

    r: Rows
    args: Args
    device: str
    words: int
    rows: Sequence[UOp]
    indices: Sequence[Index]
    shared: shared_x.Stage | None
    apart: bool

    def step(self, weights: Sequence[Weight], step: UOp, pinned: _Pins, squares: bool) -> dict[_Key, UOp]:
        """What a lane adds to each sum in a step over weights of one format. squares: those of x too."""
        r, format = self.r, weights[0].format
        a_row = steps(format, r.k, self.words)
        count = a_row * r.summed
        # lanes past the last step redo it with x = 0
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

    def _finding_x(self, token: int, summed: UOp) -> Rows:
        """The rows, whose x is where it is staged, if it is. summed: where in the loop that is summed over, if there is
        one."""
        if (shared := self.shared) is None:
            return self.r
        row = summed if self.r.summed > 1 else 0
        return replace(self.r, x=lambda args, index, column: shared.x(token, row, column))


def _clamped(weight: Weight, row: UOp) -> UOp:
    """The weight's own row, for a loop that is empty where it is not. Not masked: tinygrad would carry a mask's
    condition into the loop's length, which splits the loop in two."""
    assert weight.stop is not None
    return (row - weight.start).maximum(0).minimum(weight.stop - weight.start - 1)


class _Pins:
    """Values kept in registers of a thread. tinygrad would move a constant factor out of a sum's terms to its weights,
    of which there are more; it does not look into what is stored."""

    def __init__(self, outside: tuple[UOp, ...]) -> None:
        self._outside = outside
        self._known: dict[UOp, UOp] = {}

    def __call__(self, value: UOp) -> UOp:
        if value not in self._known:
            slot = _PINS + len(self._known)
            register = UOp.placeholder((1,), dtypes.float32, slot=slot, addrspace=AddrSpace.REG)
            stored = register.after(*self._outside)[0].store(value)
            self._known[value] = register.after(stored)[0].load()
        return self._known[value]


class _Flat:
    """An argument that computes its own offsets: tinygrad's do not survive loops whose length depends on another's."""

    def __init__(self, uop: UOp) -> None:
        self._shape, self._flat = uop.shape, uop.base  # the PARAM, without its shape

    def __getitem__(self, at: UOp | tuple[UOp | int, ...]) -> UOp:
        offset: UOp | int = 0
        for size, i in zip(self._shape, at if isinstance(at, tuple) else (at,), strict=True):
            offset = offset * size + i
        return self._flat[offset]


def _position(format: str, step: UOp, words: int) -> Step:
    """The place of a row's step."""
    if is_plain(format):
        return Step(step, step, [step * words + i for i in range(words)])
    layout = get_layout(format)
    a_chunk = layout.words // words
    block, chunk = step // (layout.chunks * a_chunk), step // a_chunk % layout.chunks
    return Step(block, chunk, [step % a_chunk * words + i for i in range(words)])
