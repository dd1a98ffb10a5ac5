"""`host_decode` and `host_prefill`: attention over a KV cache on a host's processor, of one token or of a prompt.

Workload: format F16 (that of the caches), n = heads * v_head_dim, k = head_dim. `ctx` is the length, last token
included, at which a schedule is tuned; the kernel serves every value of the Variable start_pos, in a time that grows
with it. `flash_combine` puts the runs of `host_decode` together.

    out    [splits, heads, v_head_dim]      written; of a prompt [m, heads, v_head_dim]
    lse    [splits, heads] float32          written, not of a prompt: log2 of the softmax denominator of each run
    q      [heads, head_dim]; of a prompt [m, heads, head_dim]
    k      [kv_heads, tiles, head_dim, 16] float16: position p is lane p % 16 of tile p // 16
    v      [kv_heads, max_ctx, v_head_dim] float16
    sinks  [heads] float32, only with sinks
"""

from __future__ import annotations

from tinygrad import dtypes

from db.records import Workload
from kernels.ops.attention.spec import Flash
from kernels.ops.host_attention import defaults
from kernels.ops.host_attention.attend import attend, attend_params
from kernels.ops.host_attention.slice import first_position
from kernels.ops.host_attention.spec import HostDecode, HostPrefill, tiled
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Op, Operand, Variant
from kernels.ops.spec import Spec


def _variants(w: Workload) -> dict[str, Variant]:
    Flash.from_workload(w)
    return {"lanes": Variant(attend, attend_params, schedulable=False)}


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = Flash.from_workload(w)
    decode = isinstance(s, HostDecode)
    rows, tokens = (s.splits, ()) if isinstance(s, HostDecode) else (w.m, (w.m,))
    lse = (Operand("lse", (rows, s.heads), dtypes.float32, OUT),) if decode else ()
    sinks = (Operand("sinks", (s.heads,), dtypes.float32, WEIGHT),) if s.sinks else ()
    return (
        Operand("out", (rows, s.heads, s.v_head_dim), DTYPES[w.out_dtype], OUT),
        *lse,
        Operand("q", (*tokens, s.heads, s.head_dim), DTYPES[w.x_dtype], INPUT),
        Operand("k", tiled(s.kv_heads, s.max_ctx, s.head_dim), dtypes.float16, WEIGHT),
        Operand("v", (s.kv_heads, s.max_ctx, s.v_head_dim), dtypes.float16, WEIGHT),
        *sinks,
    )


def _products(w: Workload) -> int:
    return w.m * Flash.from_workload(w).products


def _nbytes(w: Workload) -> int:
    s = Flash.from_workload(w)
    return 2 * s.seen * s.row + 4 * w.n * (s.splits if isinstance(s, HostDecode) else 1)


def _op(spec: type[Spec]) -> Op:
    return Op(
        spec=spec,
        variants=_variants,
        operands=_operands,
        heuristic_baselines=lambda w: defaults.untuned(attend_params(w)),
        default_schedules=defaults.attend,
        module=__name__,
        products=_products,
        variables=lambda w: (first_position(w),),
        nbytes=_nbytes,
    )


host_decode, host_prefill = _op(HostDecode), _op(HostPrefill)
