"""`mla_prefill`: latent attention of a prompt's tokens, in absorbed form; each sees what is up to its own position.

Workload: format F16 (the cache's), n = heads * kv_lora, k = kv_lora + rope_dim, m tokens; `ctx` is the
length with the last token, at which a schedule is tuned.

    out       [m, heads, kv_lora]           written
    q_latent  [m, heads, kv_lora]
    q_rope    [m, heads, rope_dim]
    cache     [max_ctx, kv_lora + rope_dim] float16; rows start_pos .. start_pos + m - 1 are those of the tokens
"""

from __future__ import annotations

from kernels.ops.attention.mla_decode import attention, inputs, row_nbytes
from kernels.ops.attention.op import attention_op
from kernels.ops.attention.spec import MlaPrefill

OP = attention_op(MlaPrefill, attention, inputs, row_nbytes)
