"""`flash_decode`: attention of one token over a KV cache, parallel over the context; grouped queries share their reads.

Workload: format F16 (that of the caches), n = heads * v_head_dim, k = head_dim, m = 1, and the extras of `EXTRAS`.
`max_ctx` are the rows of the caches, `ctx` is the length at which a schedule is tuned; the kernel itself serves every
position of the Variable start_pos. With `splits` 1 the output is the result; with more, `flash_combine` makes it.

    out    [splits, heads, v_head_dim]      written
    lse    [splits, heads] float32          written: log2 of each run's softmax denominator
    q      [heads, head_dim]
    k      [kv_heads, max_ctx, head_dim] float16; row start_pos is already that of this token
    v      [kv_heads, max_ctx, v_head_dim] float16
    sinks  [heads] float32, only with sinks=1
"""

from __future__ import annotations

from collections.abc import Mapping

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.attention import attend
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.op import attention_op
from kernels.ops.kit.masked_element import element
from kernels.ops.op import DTYPES, INPUT, WEIGHT, Args, Operand

EXTRAS: dict[str, int | str] = {
    "heads": 1,
    "kv_heads": 1,
    "head_dim": 1,
    "v_head_dim": 1,
    "ctx": 1,
    "max_ctx": 1,
    "splits": 1,
    "window": 0,
    "sinks": 0,
    "softcap": "none",
    "scale": "1",
}


def attention(w: Workload) -> Attention:
    """What the workload asks for. KernelError for extras that are none of `EXTRAS`."""
    return grouped(w, attend.extras(w, EXTRAS), False)


def grouped(w: Workload, e: Mapping[str, int | str], many: bool) -> Attention:
    """Attention of extras, whose heads share keys and values; of one token or of `many`, where q has an index more."""
    sizes = {name: int(e[name]) for name in ("heads", "kv_heads", "head_dim", "ctx", "max_ctx", "window")}

    def q(args: Args, token: UOp, head: UOp, column: UOp) -> UOp:
        return float32(element(args["q"], (token, head, column) if many else (head, column)))

    return Attention(
        **sizes,
        value_dim=int(e["v_head_dim"]),
        splits=int(e.get("splits", 1)),
        scale=attend.number(w, "scale", e["scale"]),
        softcap=attend.number(w, "softcap", e["softcap"]),
        sinks=bool(e["sinks"]),
        q=q,
        k=lambda args, head, position, column: float32(element(args["k"], (head, position, column))),
        v=lambda args, head, position, column: float32(element(args["v"], (head, position, column))),
        many=many,
        tokens=w.m if many else 1,
    )


def inputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    sinks = (Operand("sinks", (a.heads,), dtypes.float32, WEIGHT),) if a.sinks else ()
    tokens = (a.tokens,) if a.many else ()
    return (
        Operand("q", (*tokens, a.heads, a.head_dim), DTYPES[w.x_dtype], INPUT),
        Operand("k", (a.kv_heads, a.max_ctx, a.head_dim), dtypes.float16, WEIGHT),
        Operand("v", (a.kv_heads, a.max_ctx, a.value_dim), dtypes.float16, WEIGHT),
        *sinks,
    )


def row_nbytes(a: Attention) -> int:
    """Of a position in the caches."""
    return 2 * a.kv_heads * (a.head_dim + a.value_dim)


OP = attention_op("flash_decode", attention, inputs, row_nbytes)
