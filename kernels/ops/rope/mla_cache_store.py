"""`mla_cache_store`: what comes before latent attention, in one launch (deepseek2).

It rotates the rotary columns of each head of q, normalises the compressed kv with kv_a_norm, rotates the shared key,
and stores [latent | rotated key] in the cache that `mla_decode` reads.

Workload: format F16 (the cache's), n = k = heads * rope_dim + kv_lora + rope_dim (the columns that are written for a
token), m tokens at start_pos, start_pos + 1, ...

    q_rope   [m, heads, rope_dim]                       written
    cache    [max_ctx, kv_lora + rope_dim] float16      the tokens' rows are written
    q        [m, q_row]: heads * (qk_nope + rope_dim) columns first
    kv       [m, kv_row]: kv_lora + rope_dim columns from kv_start on
    kv_norm  [kv_lora] float32
    cos, sin [max_ctx, rope_dim / 2] float32
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, OUT, UPDATE, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.rope import defaults
from kernels.ops.rope.rotate import Rotation, first_position, rms_scale
from kernels.ops.rope.spec import MlaCacheStore


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel. Loops: 0 token, 1 run of rope_dim columns (the heads of q, the key, pieces of the latent), 2 column
    of the run, 3 the columns of the latent, for the norm."""
    s = MlaCacheStore.from_workload(w)
    rope, rank = s.rope_dim, s.kv_lora
    token, run, column = UOp.range(w.m, 0), UOp.range(s.heads + 1 + -(-rank // rope), 1), UOp.range(rope, 2)
    position = first_position(w).uop + token
    of_q, of_key = run < s.heads, run < s.heads + 1
    at = (run - (s.heads + 1)).maximum(0) * rope + column  # the column of the latent

    def kv(i: UOp) -> UOp:
        return float32(args["kv"][token, s.kv_start + i])

    def read(i: UOp) -> UOp:
        head = float32(args["q"][token, run.minimum(s.heads - 1) * (s.qk_nope + rope) + s.qk_nope + i])
        return of_q.where(head, kv(rank + i))

    turned = Rotation(s.mode, s.rope_dim).turned(args, position, column, read)
    safe = at.minimum(rank - 1)
    latent = kv(safe) * args["kv_norm"][safe] * rms_scale(kv, rank, s.eps, 3)
    place = of_key.where(rank + column, at)
    row = of_key.where(turned, latent).cast(dtypes.float16)
    q_rope = masked_element(args["q_rope"], (token, run, column), of_q).store(turned.cast(DTYPES[w.out_dtype]))
    inside = (run >= s.heads) & (place < rank + rope) & (of_key | (at < rank))
    return UOp.group(q_rope, masked_element(args["cache"], (position, place), inside).store(row)).end(
        token, run, column
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = MlaCacheStore.from_workload(w)
    rope, rank = s.rope_dim, s.kv_lora
    return (
        Operand("q_rope", (w.m, s.heads, rope), DTYPES[w.out_dtype], OUT),
        Operand("cache", (s.max_ctx, rank + rope), dtypes.float16, UPDATE),
        Operand("q", (w.m, s.q_row), DTYPES[w.x_dtype], INPUT),
        Operand("kv", (w.m, s.kv_row), DTYPES[w.x_dtype], INPUT),
        Operand("kv_norm", (rank,), dtypes.float32, WEIGHT),
        *Rotation(s.mode, s.rope_dim).operands(s.max_ctx),
    )


def _variants(w: Workload) -> dict[str, Variant]:
    MlaCacheStore.from_workload(w)
    return {"plain": Variant(_build, lambda w: ({},))}


OP = Op(
    spec=MlaCacheStore,
    variants=_variants,
    operands=_operands,
    default_schedules=defaults.mla_cache_store,
    module=__name__,
    products=lambda w: 2 * w.m * w.n,
    variables=lambda w: (first_position(w),),
    nbytes=lambda w: 8 * w.m * w.n,
    tolerances={("plain", "float32"): 1e-3},  # the caches are float16
)
