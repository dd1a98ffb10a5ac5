"""`rope_cache_store`: from the fused q, k, v of a token: rotates q and k, and stores k and v in the caches, one launch.

Workload: format F16 (that of the caches), n = k = heads * head_dim + kv_heads * (head_dim + v_head_dim) (the columns of
a token's qkv), m tokens. With `eps` each head of q and k goes through an RMSNorm of its own first (qwen3, gemma3,
glm4moe). The tokens are at start_pos, start_pos + 1, ...

    q        [m, heads, head_dim]                   written
    k_cache  [kv_heads, max_ctx, head_dim] float16  the tokens' rows are written
    v_cache  [kv_heads, max_ctx, v_head_dim] float16
    qkv      [m, n]: heads of q, then of k, then of v
    cos, sin [max_ctx, rope_dim / 2] float32; none for the mode none
    q_norm, k_norm [head_dim] float32, only with eps
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.formats.unpack import float32
from kernels.ops.attention import attend
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, OUT, UPDATE, WEIGHT, Args, KernelError, Op, Operand, Params, Variable, Variant
from kernels.ops.rope import defaults
from kernels.ops.rope.rotate import Rotation, rms_scale
from kernels.ops.rope.spec import RopeCacheStore


@dataclass(frozen=True)
class _Sizes:
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    max_ctx: int
    tokens: int
    turn: Rotation
    eps: float | None

    @property
    def rows(self) -> int:
        """Heads of q, of k and of v."""
        return self.heads + 2 * self.kv_heads

    @property
    def position(self) -> Variable:
        """That of the first token; the last one's must be below max_ctx."""
        return Variable(attend.START, 0, self.max_ctx - 1, (self.max_ctx - self.tokens) // 2)


def _sizes(w: Workload) -> _Sizes:
    s = RopeCacheStore.from_workload(w)
    if not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
        raise KernelError(f"{w.op} takes float32 or float16, saw {w.x_dtype} -> {w.out_dtype}")
    turn = Rotation(s.mode, s.rope_dim)
    return _Sizes(s.heads, s.kv_heads, s.head_dim, s.v_head_dim, s.max_ctx, w.m, turn, s.eps)


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """Loops: 0 token, 1 head of q, k or v, 2 column, 3 the columns that a norm sums over."""
    s = _sizes(w)
    token, row = UOp.range(s.tokens, 0), UOp.range(s.rows, 1)
    column = UOp.range(max(s.head_dim, s.value_dim), 2)
    position = s.position.uop + token
    of_q, of_v = row < s.heads, row >= s.heads + s.kv_heads
    # heads of q and k have head_dim columns each, then come those of v
    first_v = s.heads + s.kv_heads
    start = of_v.where(first_v * s.head_dim + (row - first_v) * s.value_dim, row * s.head_dim)
    last = of_v.where(s.value_dim - 1, s.head_dim - 1)

    def read(at: UOp) -> UOp:
        return float32(args["qkv"][token, start + (at if s.head_dim == s.value_dim else at.minimum(last))])

    def normed(at: UOp) -> UOp:
        own = at.minimum(s.head_dim - 1)
        return read(at) * of_q.where(args["q_norm"][own], args["k_norm"][own])

    unrotated = read(column)
    turned = s.turn.turned(args, position, column.minimum(s.head_dim - 1), read if s.eps is None else normed)
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
        (args["v_cache"], (row - first_v, position, column), of_v & (column < s.value_dim), unrotated.cast(cached)),
    ]
    done = [masked_element(array, indices, when).store(value) for array, indices, when, value in stores]
    return UOp.group(*done).end(token, row, column)


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = _sizes(w)
    norms = tuple(
        Operand(name, (s.head_dim,), dtypes.float32, WEIGHT) for name in ("q_norm", "k_norm") if s.eps is not None
    )
    return (
        Operand("q", (s.tokens, s.heads, s.head_dim), DTYPES[w.out_dtype], OUT),
        Operand("k_cache", (s.kv_heads, s.max_ctx, s.head_dim), dtypes.float16, UPDATE),
        Operand("v_cache", (s.kv_heads, s.max_ctx, s.value_dim), dtypes.float16, UPDATE),
        Operand("qkv", (s.tokens, w.n), DTYPES[w.x_dtype], INPUT),
        *s.turn.operands(s.max_ctx),
        *norms,
    )


def _variants(w: Workload) -> dict[str, Variant]:
    _sizes(w)
    return {"plain": Variant(_build, lambda w: ({},))}


OP = Op(
    name="rope_cache_store",
    spec=RopeCacheStore,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("plain", (), None),),
    default_schedules=lambda w, device: defaults.rope_cache_store(device, _sizes(w).eps is not None),
    module=__name__,
    products=lambda w: 2 * w.m * w.n,
    variables=lambda w: (_sizes(w).position,),
    nbytes=lambda w: w.m * (8 * w.n + 4 * _sizes(w).turn.size),
    tolerances={("plain", "float32"): 1e-3},  # the caches are float16
)
