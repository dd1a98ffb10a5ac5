"""`flash_decode` and `flash_prefill`: attention over a KV cache. Query heads that share a kv head share its reads.

`flash_decode` is for one token and parallel over the context: with `splits` 1 the output is the result, with more,
`flash_combine` makes the result from the outputs. `flash_prefill` is for the m tokens of a prompt, which the cache
already holds; each token sees the positions up to its own.

Workload: format F16 (that of the caches), n = heads * v_head_dim, k = head_dim. The caches have `max_ctx` rows. `ctx`
is the length, last token included, at which a schedule is tuned; the kernel serves every value of the Variable
start_pos.

    out    [splits, heads, v_head_dim]      written; of a prompt [m, heads, v_head_dim]
    lse    [splits, heads] float32          written, not of a prompt: log2 of the softmax denominator of each split
    q      [heads, head_dim]; of a prompt [m, heads, head_dim]
    k      [kv_heads, max_ctx, head_dim] float16; the rows from start_pos on already are those of the tokens
    v      [kv_heads, max_ctx, v_head_dim] float16
    sinks  [heads] float32, only with sinks
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.op import attention_op
from kernels.ops.attention.spec import Flash, FlashDecode, FlashPrefill
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, WEIGHT, Args, Operand


def attention(w: Workload) -> Attention:
    """The Attention of a workload. KernelError for one that is no `Flash`."""
    s = Flash.from_workload(w)
    prefill = isinstance(s, FlashPrefill)

    def q(args: Args, token: UOp, head: UOp, column: UOp) -> UOp:
        return float32(masked_element(args["q"], (token, head, column) if prefill else (head, column)))

    return Attention(
        heads=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        value_dim=s.v_head_dim,
        ctx=s.ctx,
        max_ctx=s.max_ctx,
        splits=s.splits if isinstance(s, FlashDecode) else 1,
        window=s.window,
        scale=s.scale,
        softcap=s.softcap or 0.0,
        sinks=s.sinks,
        q=q,
        k=lambda args, head, position, column: float32(masked_element(args["k"], (head, position, column))),
        v=lambda args, head, position, column: float32(masked_element(args["v"], (head, position, column))),
        prefill=prefill,
        tokens=w.m if prefill else 1,
    )


def inputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    sinks = (Operand("sinks", (a.heads,), dtypes.float32, WEIGHT),) if a.sinks else ()
    tokens = (a.tokens,) if a.prefill else ()
    return (
        Operand("q", (*tokens, a.heads, a.head_dim), DTYPES[w.x_dtype], INPUT),
        Operand("k", (a.kv_heads, a.max_ctx, a.head_dim), dtypes.float16, WEIGHT),
        Operand("v", (a.kv_heads, a.max_ctx, a.value_dim), dtypes.float16, WEIGHT),
        *sinks,
    )


def row_nbytes(a: Attention) -> int:
    """Bytes of one position in the caches."""
    return 2 * a.kv_heads * (a.head_dim + a.value_dim)


flash_decode, flash_prefill = (
    attention_op(spec, attention, inputs, row_nbytes) for spec in (FlashDecode, FlashPrefill)
)
