"""`embed` over a tiled table: out[m, k] = rows ids[m] of a weight [n, k], dequantised, times `scale`, float32.

An id beyond the rows is clamped to the first or the last. Loops for opts to schedule: 0 token, 1 block, 2 chunk, 3 the
step of `words` words.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.backends import Needs
from kernels.formats import get_format
from kernels.formats.tiles import TILE
from kernels.formats.unpack import Block, get_layout, quant_value
from kernels.ops.embed.spec import Embed
from kernels.ops.kit.loops import total
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.q8.spec import spec_of
from kernels.ops.q8.tile_dot import tiled_operands
from kernels.ops.q8.vector import call, outer, ranges


class _TiledBlock(Block):
    """The planes of a tiled weight at (row, block), with the bits where the file has them."""

    def __getattr__(self, name: str) -> Callable[[UOp | int], UOp]:
        plane, lane = self._arrays[name], self._row % TILE

        def item(i: UOp | int) -> UOp:
            return plane[self._row // TILE, self._block, i, lane]

        return (lambda i: _fifths(item(i))) if name == "qh" and "scales" not in self._arrays else item

    def table(self, name: str, item: UOp) -> UOp:
        """The table of IQ4_NL and IQ4_XS, which kernels over int8 have as code."""
        return call("v_iq4_value", item)


def _fifths(placed: UOp) -> UOp:
    """The fifth bits of Q5_0 and Q5_1, back from where `kernels.formats.tiles` placed them."""
    found = []
    for high in range(2):
        for word in range(4):
            bits = (placed >> (4 * high + word)) & 0x01010101
            found.append(((bits | bits >> 7 | bits >> 14 | bits >> 21) & 15) << (16 * high + 4 * word))
    return total(found)


def _check(w: Workload) -> Embed:
    s = spec_of(Embed, w)
    get_format(w.format).blocks(w.k)
    return s


def _kernel(w: Workload, params: Params, args: Args, device: str) -> UOp:
    s, fmt, layout, words = _check(w), get_format(w.format), get_layout(w.format), params["words"]
    loops = [outer(size, i) for i, size in enumerate((w.m, fmt.blocks(w.k), layout.chunks, layout.words // words))]
    token, at, chunk, step = loops
    row = args["ids"][token].maximum(0).minimum(w.n - 1).cast(dtypes.weakint)
    block = _TiledBlock({p.name: args[f"w.{p.name}"] for p in fmt.planes}, row, at, device)
    groups, stores = layout.groups(block, chunk), []
    for word in range(words):
        for run in layout.runs(block, chunk, step * words + word):
            scale, offset = groups[run.group].scale, groups[run.group].offset
            for i, quant in enumerate(run.quants):
                weight = scale * quant_value(quant)
                weight = weight if offset is None else weight - offset
                stores.append(args["out"][token, at * fmt.block + run.start + i].store(weight * s.scale))
    return UOp.group(*stores).end(*ranges(*loops))


def _variants(w: Workload) -> dict[str, Variant]:
    _check(w)
    words = get_layout(w.format).words
    params = tuple({"words": n} for n in (1, 2, 4, 8) if words % n == 0)
    return {"words": Variant(_kernel, lambda w: params, lambda w, p: Needs(prelude=True))}


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, k], the weight's tiled planes, ids [m]."""
    _check(w)
    return (
        Operand("out", (w.m, w.k), DTYPES[w.out_dtype], OUT),
        *tiled_operands("w", w.format, 1, w.n, w.k),
        Operand("ids", (w.m,), DTYPES["int32"], INPUT),
    )


def _nbytes(w: Workload) -> int:
    """Bytes of the rows that are asked for, and of every other operand."""
    written = sum(o.nbytes for o in _operands(w) if o.role != WEIGHT)
    return written + min(w.m, w.n) * get_format(w.format).row_nbytes(w.k)


_UNTUNED = (Schedule("words", (("words", 1),), ()),)

OP = Op(
    spec=Embed,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: _UNTUNED,
    default_schedules=lambda w, variants, device: _UNTUNED,
    module=__name__,
    products=lambda w: w.m * w.k,
    formats=lambda w: (w.format,),
    nbytes=_nbytes,
)
