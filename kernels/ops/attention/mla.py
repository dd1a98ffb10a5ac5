"""`mla_decode` and `mla_prefill`: latent attention (deepseek2) in its absorbed form, of one token or of a prompt.

Every head attends to the same rows of a cache, [latent | rotated key]. The values are the latents themselves, so that a
row is read once for both (DeepSeek-V2, 2024, section 2.1). The products with k_b and v_b are ops of their own.
`mla_decode` is parallel over the context. In `mla_prefill` each token sees the positions up to its own.

Workload: format F16 (that of the cache), n = heads * kv_lora, k = kv_lora + rope_dim. `ctx` is the length, last token
included, at which a schedule is tuned.

    out       [splits, heads, kv_lora]      written; of a prompt [m, heads, kv_lora]
    lse       [splits, heads] float32       written, not of a prompt: log2 of the softmax denominator of each split
    q_latent  [heads, kv_lora]; of a prompt [m, heads, kv_lora]
    q_rope    [heads, rope_dim]; of a prompt [m, heads, rope_dim]
    cache     [max_ctx, kv_lora + rope_dim] float16; the rows from start_pos on already are those of the tokens
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.op import attention_op
from kernels.ops.attention.spec import Mla, MlaDecode, MlaPrefill
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, WEIGHT, Args, Operand


def attention(w: Workload) -> Attention:
    """The Attention of a workload. KernelError for one that is no `Mla`."""
    s = Mla.from_workload(w)
    prefill, rank = isinstance(s, MlaPrefill), s.kv_lora

    def q(args: Args, token: UOp, head: UOp, column: UOp) -> UOp:
        at, inside = column.get_idx(), column.get_valid()
        row = (token, head) if prefill else (head,)
        latent = masked_element(args["q_latent"], (*row, at), inside & (at < rank))
        rotated = masked_element(args["q_rope"], (*row, at - rank), inside & (at >= rank))
        return (at < rank).where(float32(latent), float32(rotated))

    def row(args: Args, head: UOp, position: UOp, column: UOp) -> UOp:
        return float32(masked_element(args["cache"], (position, column)))

    return Attention(
        heads=s.heads,
        kv_heads=1,
        head_dim=rank + s.rope_dim,
        value_dim=rank,
        ctx=s.ctx,
        max_ctx=s.max_ctx,
        splits=s.splits if isinstance(s, MlaDecode) else 1,
        scale=s.scale,
        q=q,
        k=row,
        v=row,
        prefill=prefill,
        tokens=w.m if prefill else 1,
    )


def inputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    tokens = (a.tokens,) if a.prefill else ()
    return (
        Operand("q_latent", (*tokens, a.heads, a.value_dim), DTYPES[w.x_dtype], INPUT),
        Operand("q_rope", (*tokens, a.heads, a.head_dim - a.value_dim), DTYPES[w.x_dtype], INPUT),
        Operand("cache", (a.max_ctx, a.head_dim), dtypes.float16, WEIGHT),
    )


def row_nbytes(a: Attention) -> int:
    """Bytes of one position in the cache."""
    return 2 * a.head_dim


mla_decode, mla_prefill = (attention_op(spec, attention, inputs, row_nbytes) for spec in (MlaDecode, MlaPrefill))
