"""`flash_prefill`: attention of a prompt's tokens over a KV cache that holds them already; each sees what is up to its
own position.

Workload: format F16 (that of the caches), n = heads * v_head_dim, k = head_dim, m tokens, and the extras of
`flash_decode` but `splits`; `ctx` is the length with the last token, at which a schedule is tuned.

    out    [m, heads, v_head_dim]           written
    q      [m, heads, head_dim]
    k      [kv_heads, max_ctx, head_dim] float16; rows start_pos .. start_pos + m - 1 are those of the tokens
    v      [kv_heads, max_ctx, v_head_dim] float16
    sinks  [heads] float32, only with sinks=1
"""

from __future__ import annotations

from db.records import Workload
from kernels.ops.attention import attend
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.flash_decode import EXTRAS, grouped, inputs, row_nbytes
from kernels.ops.attention.op import attention_op


def attention(w: Workload) -> Attention:
    """What the workload asks for. KernelError for extras that are none of `EXTRAS`, and for splits."""
    return grouped(w, attend.extras(w, {name: none for name, none in EXTRAS.items() if name != "splits"}), True)


OP = attention_op("flash_prefill", attention, inputs, row_nbytes)
