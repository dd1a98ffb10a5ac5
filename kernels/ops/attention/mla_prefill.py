"""`mla_prefill`: latent attention of a prompt's tokens, in absorbed form; each sees what is up to its own position.

Workload: format F16 (the cache's), n = heads * kv_lora, k = kv_lora + rope_dim, m tokens, and the extras of
`mla_decode` but `splits`; `ctx` is the length with the last token, at which a schedule is tuned.

    out       [m, heads, kv_lora]           written
    q_latent  [m, heads, kv_lora]
    q_rope    [m, heads, rope_dim]
    cache     [max_ctx, kv_lora + rope_dim] float16; rows start_pos .. start_pos + m - 1 are those of the tokens
"""

from __future__ import annotations

from db.records import Workload
from kernels.ops.attention import attend
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.mla_decode import EXTRAS, inputs, latent, row_nbytes
from kernels.ops.attention.op import attention_op


def attention(w: Workload) -> Attention:
    """What the workload asks for. KernelError for extras that are none of `EXTRAS`, and for splits."""
    return latent(w, attend.extras(w, {name: none for name, none in EXTRAS.items() if name != "splits"}), True)


OP = attention_op("mla_prefill", attention, inputs, row_nbytes)
