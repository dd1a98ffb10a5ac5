"""`host_cache_store`: what `rope_cache_store` does, with a cache of keys in tiles of 16 positions.

Workload: format F16 (that of the caches), n = k = heads * head_dim + kv_heads * (head_dim + v_head_dim) (the columns of
q, k and v of a token), m tokens at start_pos, start_pos + 1, ... Its slices are runs of tokens.

    q        [m, heads, head_dim]                          written
    k_cache  [kv_heads, tiles, head_dim, 16] float16       the tokens' positions are written
    v_cache  [kv_heads, max_ctx, v_head_dim] float16
    qkv      [m, n]: heads of q, then of k, then of v
    cos, sin [max_ctx, rope_dim / 2] float32; none for the mode none
    q_norm, k_norm [head_dim] float32, only with eps
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.host_attention import defaults
from kernels.ops.host_attention.arithmetic import tree
from kernels.ops.host_attention.spec import TILE, HostCacheStore, tiled
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.kit.pieces import ended, even, pieces
from kernels.ops.kit.workgroup import Store, Workgroup
from kernels.ops.op import DTYPES, INPUT, OUT, START, UPDATE, WEIGHT, Args, Op, Operand, Params, Variable, Variant
from kernels.ops.rope.rotate import Rotation
from kernels.tinygrad.uops import AxisType

_LANES = 8  # partial sums of a norm's squares

Put = Callable[[UOp, UOp, UOp], Store]
"""(head, column, value) -> where it is stored."""


def first_position(w: Workload) -> Variable:
    """The position of the first token."""
    max_ctx = HostCacheStore.from_workload(w).max_ctx
    return Variable(START, 0, max_ctx - 1, (max_ctx - w.m) // 2)


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    s = HostCacheStore.from_workload(w)
    token, loops = pieces(w.m, even(w.m)[-1])
    wg = Workgroup(1, None, *loops)
    position = first_position(w).uop + token

    def qkv(at: UOp) -> UOp:
        return float32(masked_element(args["qkv"], (token, at)))

    def put_q(head: UOp, column: UOp, value: UOp) -> Store:
        return args["q"], (token, head, column), value.cast(DTYPES[w.out_dtype])

    def put_k(head: UOp, column: UOp, value: UOp) -> Store:
        return args["k_cache"], (head, position // TILE, column, position % TILE), value.cast(dtypes.float16)

    first_v = (s.heads + s.kv_heads) * s.head_dim
    _rotate(wg, s, args, position, s.heads, qkv, args.get("q_norm"), put_q)
    _rotate(wg, s, args, position, s.kv_heads, lambda at: qkv(s.heads * s.head_dim + at), args.get("k_norm"), put_k)
    rotated = wg.now
    wg.update(
        s.kv_heads * s.v_head_dim,
        lambda i: [
            (
                args["v_cache"],
                (i // s.v_head_dim, position, i % s.v_head_dim),
                qkv(first_v + i).cast(dtypes.float16),
            )
        ],
    )
    return ended(UOp.group(*rotated, *wg.now), loops)


def _rotate(
    wg: Workgroup,
    s: HostCacheStore,
    args: Args,
    position: UOp,
    heads: int,
    read: Callable[[UOp], UOp],
    norm: UOp | None,
    put: Put,
) -> None:
    """Stores `heads` heads, normalised and rotated. read: of the column of all heads."""
    head = wg.allot.loop(heads, AxisType.LOOP)
    loops = () if heads == 1 else (head,)
    wg.now = (*wg.now, *loops)
    start, dim, half = head * s.head_dim, s.head_dim, s.rope_dim // 2
    row = wg.array(dim)
    wg.update(dim, lambda c: [(row, (c,), read(start + c))])
    if norm is not None and s.eps is not None:
        scale = _rms_scale(wg, row, dim, s.eps)
        wg.update(dim, lambda c: [(row, (c,), wg.read(row)[c] * norm[c] * wg.read(scale)[0])])
    if s.mode == "none":
        wg.update(dim, lambda c: [put(head, c, wg.read(row)[c])])
    else:

        def pair(i: UOp) -> list[Store]:
            a, b = (2 * i, 2 * i + 1) if s.mode == "interleaved" else (i, i + half)
            x, y = wg.read(row)[a], wg.read(row)[b]
            cos, sin = (masked_element(args[name], (position, i)) for name in ("cos", "sin"))
            return [put(head, a, x * cos - y * sin), put(head, b, y * cos + x * sin)]

        wg.update(half, pair)
        if dim > s.rope_dim:
            wg.update(dim - s.rope_dim, lambda c: [put(head, s.rope_dim + c, wg.read(row)[s.rope_dim + c])])
    if loops:
        wg.repeat(loops)


def _rms_scale(wg: Workgroup, row: UOp, dim: int, eps: float) -> UOp:
    """An array of one: 1 / sqrt(mean(x^2) + eps)."""
    lanes = _LANES if dim % _LANES == 0 else 1
    squares, scale = wg.array(lanes), wg.array(1)
    wg.update(lanes, lambda r: [(squares, (r,), UOp.const(0.0, dtypes.float32))])
    step = wg.allot.range(dim // lanes, AxisType.LOOP)
    wg.now = (*wg.now, step)

    def add(r: UOp) -> list[Store]:
        x = wg.read(row)[step * lanes + r]
        return [(squares, (r,), wg.read(squares)[r] + x * x)]

    wg.update(lanes, add)
    wg.repeat((step,))
    mean = tree(operator.add, [wg.read(squares)[r] for r in range(lanes)]) * (1.0 / dim)
    wg.update(1, lambda i: [(scale, (i,), (mean + eps).sqrt().reciprocal())])
    return scale


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = HostCacheStore.from_workload(w)
    names = ("q_norm", "k_norm") if s.eps is not None else ()
    return (
        Operand("q", (w.m, s.heads, s.head_dim), DTYPES[w.out_dtype], OUT),
        Operand("k_cache", tiled(s.kv_heads, s.max_ctx, s.head_dim), dtypes.float16, UPDATE),
        Operand("v_cache", (s.kv_heads, s.max_ctx, s.v_head_dim), dtypes.float16, UPDATE),
        Operand("qkv", (w.m, w.n), DTYPES[w.x_dtype], INPUT),
        *Rotation(s.mode, s.rope_dim).operands(s.max_ctx),
        *(Operand(name, (s.head_dim,), dtypes.float32, WEIGHT) for name in names),
    )


def _variants(w: Workload) -> dict[str, Variant]:
    HostCacheStore.from_workload(w)
    return {"lanes": Variant(_build, lambda w: ({},), schedulable=False)}


OP = Op(
    spec=HostCacheStore,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: defaults.untuned([{}]),
    default_schedules=defaults.cache_store,
    module=__name__,
    products=lambda w: 2 * w.m * w.n,
    variables=lambda w: (first_position(w),),
    nbytes=lambda w: w.m * (8 * w.n + 4 * HostCacheStore.from_workload(w).rope_dim),
    tolerances={("lanes", "float32"): 1e-3},  # the caches are float16
)
