"""`flash_prefill`: attention of a prompt's tokens over a KV cache that holds them already; each sees what is up to its
own position.

Workload: format F16 (that of the caches), n = heads * v_head_dim, k = head_dim, m tokens; `ctx` is the
length with the last token, at which a schedule is tuned.

    out    [m, heads, v_head_dim]           written
    q      [m, heads, head_dim]
    k      [kv_heads, max_ctx, head_dim] float16; rows start_pos .. start_pos + m - 1 are those of the tokens
    v      [kv_heads, max_ctx, v_head_dim] float16
    sinks  [heads] float32, only with sinks
"""

from __future__ import annotations

from kernels.ops.attention.flash_decode import attention, inputs, row_nbytes
from kernels.ops.attention.op import attention_op
from kernels.ops.attention.spec import FlashPrefill

OP = attention_op(FlashPrefill, attention, inputs, row_nbytes)
