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

from tinygrad import dtypes

from db.records import Workload
from kernels.op import DTYPES, INPUT, WEIGHT, Operand
from kernels.ops import attend
from kernels.ops.attend import Attention
from kernels.ops.attend_choices import attention_op
from kernels.ops.gated import element
from kernels.unpack import float32

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
    e = attend.extras(w, EXTRAS)
    sizes = {name: int(e[name]) for name in ("heads", "kv_heads", "head_dim", "ctx", "max_ctx", "splits", "window")}
    return Attention(
        **sizes,
        value_dim=int(e["v_head_dim"]),
        scale=attend.number(w, "scale", e["scale"]),
        softcap=attend.number(w, "softcap", e["softcap"]),
        sinks=bool(e["sinks"]),
        q=lambda args, head, column: float32(element(args["q"], (head, column))),
        k=lambda args, head, position, column: float32(element(args["k"], (head, position, column))),
        v=lambda args, head, position, column: float32(element(args["v"], (head, position, column))),
    )


def _inputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    sinks = (Operand("sinks", (a.heads,), dtypes.float32, WEIGHT),) if a.sinks else ()
    return (
        Operand("q", (a.heads, a.head_dim), DTYPES[w.x_dtype], INPUT),
        Operand("k", (a.kv_heads, a.max_ctx, a.head_dim), dtypes.float16, WEIGHT),
        Operand("v", (a.kv_heads, a.max_ctx, a.value_dim), dtypes.float16, WEIGHT),
        *sinks,
    )


OP = attention_op("flash_decode", attention, _inputs, lambda a: 2 * a.kv_heads * (a.head_dim + a.value_dim))
