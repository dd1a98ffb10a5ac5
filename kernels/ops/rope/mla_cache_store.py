"""`mla_cache_store`: the rotations of latent attention and its cache's new rows, in one launch (deepseek2).

Rotates the rotary columns of each head of q, normalises the compressed kv with kv_a_norm, rotates the shared key, and
stores [latent | rotated key] in the cache that `mla_decode` reads.

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

from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.formats.unpack import float32
from kernels.ops.attention import attend
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import DTYPES, INPUT, OUT, UPDATE, WEIGHT, Args, KernelError, Op, Operand, Params, Variable, Variant
from kernels.ops.rope import defaults
from kernels.ops.rope.rotate import Rotation, rms_scale
from kernels.ops.rope.spec import MlaCacheStore


@dataclass(frozen=True)
class _Sizes:
    heads: int
    rank: int
    nope: int
    max_ctx: int
    tokens: int
    turn: Rotation
    eps: float
    q_row: int
    kv_row: int
    kv_start: int

    @property
    def position(self) -> Variable:
        """That of the first token; the last one's must be below max_ctx."""
        return Variable(attend.START, 0, self.max_ctx - 1, (self.max_ctx - self.tokens) // 2)


def _sizes(w: Workload) -> _Sizes:
    s = MlaCacheStore.from_workload(w)
    if not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
        raise KernelError(f"{w.op} takes float32 or float16, saw {w.x_dtype} -> {w.out_dtype}")
    turn = Rotation(s.mode, s.rope_dim)
    return _Sizes(s.heads, s.kv_lora, s.qk_nope, s.max_ctx, w.m, turn, s.eps, s.q_row, s.kv_row, s.kv_start)


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """Loops: 0 token, 1 run of columns: heads of q, the key, pieces of the latent; 2 column of it, 3 the norm's sum."""
    s = _sizes(w)
    rope = s.turn.size
    token, run, column = UOp.range(s.tokens, 0), UOp.range(s.heads + 1 + -(-s.rank // rope), 1), UOp.range(rope, 2)
    position = s.position.uop + token
    of_q, of_key = run < s.heads, run < s.heads + 1
    at = (run - (s.heads + 1)).maximum(0) * rope + column  # in the latent

    def kv(i: UOp) -> UOp:
        return float32(args["kv"][token, s.kv_start + i])

    def read(i: UOp) -> UOp:
        head = float32(args["q"][token, run.minimum(s.heads - 1) * (s.nope + rope) + s.nope + i])
        return of_q.where(head, kv(s.rank + i))

    turned = s.turn.turned(args, position, column, read)
    safe = at.minimum(s.rank - 1)
    latent = kv(safe) * args["kv_norm"][safe] * rms_scale(kv, s.rank, s.eps, 3)
    place = of_key.where(s.rank + column, at)
    row = of_key.where(turned, latent).cast(dtypes.float16)
    q_rope = masked_element(args["q_rope"], (token, run, column), of_q).store(turned.cast(DTYPES[w.out_dtype]))
    inside = (run >= s.heads) & (place < s.rank + rope) & (of_key | (at < s.rank))
    return UOp.group(q_rope, masked_element(args["cache"], (position, place), inside).store(row)).end(
        token, run, column
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = _sizes(w)
    rope = s.turn.size
    return (
        Operand("q_rope", (s.tokens, s.heads, rope), DTYPES[w.out_dtype], OUT),
        Operand("cache", (s.max_ctx, s.rank + rope), dtypes.float16, UPDATE),
        Operand("q", (s.tokens, s.q_row), DTYPES[w.x_dtype], INPUT),
        Operand("kv", (s.tokens, s.kv_row), DTYPES[w.x_dtype], INPUT),
        Operand("kv_norm", (s.rank,), dtypes.float32, WEIGHT),
        *s.turn.operands(s.max_ctx),
    )


def _variants(w: Workload) -> dict[str, Variant]:
    _sizes(w)
    return {"plain": Variant(_build, lambda w: ({},))}


OP = Op(
    name="mla_cache_store",
    spec=MlaCacheStore,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("plain", (), None),),
    default_schedules=lambda w, device: defaults.mla_cache_store(device),
    module=__name__,
    products=lambda w: 2 * w.m * w.n,
    variables=lambda w: (_sizes(w).position,),
    nbytes=lambda w: 8 * w.m * w.n,
    tolerances={("plain", "float32"): 1e-3},  # the caches are float16
)
