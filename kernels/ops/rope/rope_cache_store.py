"""`rope_cache_store`: rotates q and k of each token, and stores k and v in the caches, in one launch.

Workload: format F16 (that of the caches), n = k = heads * head_dim + kv_heads * (head_dim + v_head_dim) (the columns of
q, k and v of a token), m tokens at start_pos, start_pos + 1, ... With `eps` each head of q and k is normalised first,
by an RMSNorm (qwen3, gemma3, glm4moe).

    q        [m, heads, head_dim]                   written
    k_cache  [kv_heads, max_ctx, head_dim] float16  the tokens' rows are written
    v_cache  [kv_heads, max_ctx, v_head_dim] float16
    qkv      [m, n]: heads of q, then of k, then of v
    cos, sin [max_ctx, rope_dim / 2] float32; none for the mode none
    q_norm, k_norm [head_dim] float32, only with eps
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, OUT, UPDATE, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.rope import defaults
from kernels.ops.rope.rotate import Rotation, first_position, rms_scale
from kernels.ops.rope.spec import RopeCacheStore


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel. Loops: 0 token, 1 head of q, k or v, 2 column, 3 the columns that a norm sums over."""
    s = RopeCacheStore.from_workload(w)
    token, row = UOp.range(w.m, 0), UOp.range(s.heads + 2 * s.kv_heads, 1)
    column = UOp.range(max(s.head_dim, s.v_head_dim), 2)
    position = first_position(w).uop + token
    of_q, of_v = row < s.heads, row >= s.heads + s.kv_heads
    # heads of q and k have head_dim columns each, then come those of v
    first_v = s.heads + s.kv_heads
    start = of_v.where(first_v * s.head_dim + (row - first_v) * s.v_head_dim, row * s.head_dim)
    last = of_v.where(s.v_head_dim - 1, s.head_dim - 1)

    def read(at: UOp) -> UOp:
        return float32(args["qkv"][token, start + (at if s.head_dim == s.v_head_dim else at.minimum(last))])

    def normed(at: UOp) -> UOp:
        own = at.minimum(s.head_dim - 1)
        return read(at) * of_q.where(args["q_norm"][own], args["k_norm"][own])

    unrotated = read(column)
    turned = Rotation(s.mode, s.rope_dim).turned(
        args, position, column.minimum(s.head_dim - 1), read if s.eps is None else normed
    )
    if s.eps is not None:
        turned = turned * rms_scale(read, s.head_dim, s.eps, 3)
    cached = dtypes.float16
    stores = [
        (args["q"], (token, row, column), of_q & (column < s.head_dim), turned.cast(DTYPES[w.out_dtype])),
        (
            args["k_cache"],
            (row - s.heads, position, column),
            (row >= s.heads) & (row < first_v) & (column < s.head_dim),
            turned.cast(cached),
        ),
        (args["v_cache"], (row - first_v, position, column), of_v & (column < s.v_head_dim), unrotated.cast(cached)),
    ]
    done = [masked_element(array, indices, when).store(value) for array, indices, when, value in stores]
    return UOp.group(*done).end(token, row, column)


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = RopeCacheStore.from_workload(w)
    norms = tuple(
        Operand(name, (s.head_dim,), dtypes.float32, WEIGHT) for name in ("q_norm", "k_norm") if s.eps is not None
    )
    return (
        Operand("q", (w.m, s.heads, s.head_dim), DTYPES[w.out_dtype], OUT),
        Operand("k_cache", (s.kv_heads, s.max_ctx, s.head_dim), dtypes.float16, UPDATE),
        Operand("v_cache", (s.kv_heads, s.max_ctx, s.v_head_dim), dtypes.float16, UPDATE),
        Operand("qkv", (w.m, w.n), DTYPES[w.x_dtype], INPUT),
        *Rotation(s.mode, s.rope_dim).operands(s.max_ctx),
        *norms,
    )


def _variants(w: Workload) -> dict[str, Variant]:
    RopeCacheStore.from_workload(w)
    return {"plain": Variant(_build, lambda w: ({},))}


OP = Op(
    spec=RopeCacheStore,
    variants=_variants,
    operands=_operands,
    default_schedules=defaults.rope_cache_store,
    module=__name__,
    products=lambda w: 2 * w.m * w.n,
    variables=lambda w: (first_position(w),),
    nbytes=lambda w: w.m * (8 * w.n + 4 * RopeCacheStore.from_workload(w).rope_dim),
    tolerances={("plain", "float32"): 1e-3},  # the caches are float16
)
