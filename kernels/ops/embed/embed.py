"""`embed`: out[m, k] = rows ids[m] of a packed weight [n, k], dequantised, times `scale`.

Only the rows that are asked for are read. An id beyond the rows is clamped to the first or the last. Loops for opts to
schedule: 0 token, 1 block, 2 chunk, 3 the step of `words` words.
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.formats import get_format
from kernels.formats.unpack import Block, get_layout, quant_value
from kernels.ops.embed import defaults
from kernels.ops.embed.spec import Embed
from kernels.ops.linear.dot import chunk_words, is_unquantized, unquantized_weight, weight_operands
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Op, Operand, Params, Variant


def _check(w: Workload) -> None:
    Embed.from_workload(w)
    get_format(w.format).blocks(w.k)


def _embed(w: Workload, params: Params, args: Args, device: str) -> UOp:
    fmt, words, scale = get_format(w.format), params["words"], Embed.from_workload(w).scale
    arrays = {a.name: args[f"w.{a.name}"] for a in fmt.arrays}
    token = UOp.range(w.m, 0)
    row = args["ids"][token].maximum(0).minimum(w.n - 1).cast(dtypes.weakint)

    def store(column: UOp, value: UOp) -> UOp:
        return args["out"][token, column].store((value * scale).cast(DTYPES[w.out_dtype]))

    if is_unquantized(w.format):
        step = UOp.range(w.k // words, 1)
        columns = [step * words + i for i in range(words)]
        stores = [store(c, unquantized_weight(arrays["w"][row, c, 0], w.format, device)) for c in columns]
        return UOp.group(*stores).end(token, step)
    layout = get_layout(w.format)
    loops = tuple(
        UOp.range(size, 1 + i) for i, size in enumerate((fmt.blocks(w.k), layout.chunks, layout.words // words))
    )
    at, chunk, step = loops
    block = Block(arrays, row, at, device)
    groups, stores = layout.groups(block, chunk), []
    for word in range(words):
        for run in layout.runs(block, chunk, step * words + word):
            group = groups[run.group]
            for i, quant in enumerate(run.quants):
                weight = group.scale * quant_value(quant)
                weight = weight if group.offset is None else weight - group.offset
                stores.append(store(at * fmt.block + run.start + i, weight))
    return UOp.group(*stores).end(token, *loops)


def _params(w: Workload) -> tuple[Params, ...]:
    return tuple({"words": words} for words in (1, 2, 4, 8) if chunk_words(w.format, w.k) % words == 0)


def _variants(w: Workload) -> dict[str, Variant]:
    _check(w)
    return {"words": Variant(_embed, _params)}


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, k], the weight's planes [n, blocks, items], ids [m]."""
    _check(w)
    return (
        Operand("out", (w.m, w.k), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, w.n, w.k),
        Operand("ids", (w.m,), DTYPES["int32"], INPUT),
    )


def _nbytes(w: Workload) -> int:
    """Bytes of the rows that are asked for, and of every other operand."""
    written = sum(o.nbytes for o in _operands(w) if o.role != WEIGHT)
    return written + min(w.m, w.n) * get_format(w.format).row_nbytes(w.k)


OP = Op(
    spec=Embed,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("words", (("words", 1),), None),),
    default_schedules=defaults.embed,
    module=__name__,
    products=lambda w: w.m * w.k,
    formats=lambda w: (w.format,),
    nbytes=_nbytes,
)
