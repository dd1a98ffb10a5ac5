"""The maths of each op as plain Tensor code, which tinygrad lowers by itself, for comparison with the fused kernels.

Weights are dequantised lazily inside the expression, as `tinygrad.llm` does with a GGUF. Not a bench itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType
from tinygrad import Tensor, dtypes
from tinygrad.llm.gguf import ggml_data_to_tensor

from bench.captured import captured
from db.records import Workload
from kernels.formats import reference
from kernels.ops.attention.spec import FlashDecode, MlaDecode
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.linear.spec import GateUp, HeadLinear, RmsNormLinear
from kernels.ops.norm.spec import RmsNorm
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore
from kernels.ops.topk.spec import TopK

COPIES_NBYTES = 256 << 20  # launches rotate through about this many bytes of weights, so that none are in a cache
MAX_COPIES = 16
DISTINCT_ROWS = 1021


@dataclass(frozen=True)
class Lowered:
    """tinygrad's own kernels for one op: the number of launches, and the seconds of all of them."""

    launches: int
    seconds: float


Weights = dict[str, Tensor]
Build = Callable[[Workload, np.random.Generator], tuple[Callable[[], Weights], Callable[[Weights], Tensor]]]


def _random(rng: np.random.Generator, *shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape, dtype=np.float32)).realize()


def _raw(rng: np.random.Generator, format: str, n: int, k: int) -> Tensor:
    rows = reference.random_blocks(format, min(n, DISTINCT_ROWS), k, rng)
    return Tensor(np.ascontiguousarray(rows[np.arange(n) % len(rows)])).realize()


def _dense(raw: Tensor, format: str, *shape: int) -> Tensor:
    return ggml_data_to_tensor(raw.flatten(), int(np.prod(shape)), GGMLQuantizationType[format].value).reshape(shape)


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def _act(name: object, gate: Tensor, up: Tensor) -> Tensor:
    return (gate.gelu() if name == "gelu" else gate.silu()) * up


def _linear(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    x, residual = _random(rng, w.m, w.k), _random(rng, w.m, w.n)

    def run(p: Weights) -> Tensor:
        out = x @ _dense(p["w"], w.format, w.n, w.k).T
        return out + residual if "add" in w.epilogue else out

    return lambda: {"w": _raw(rng, w.format, w.n, w.k)}, run


def _rmsnorm_linear(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = RmsNormLinear.from_workload(w)
    x, norm = _random(rng, w.m, w.k), _random(rng, w.k)

    def run(p: Weights) -> Tensor:
        inside = _rms(x, norm, s.eps)
        outs = [inside @ _dense(p[str(i)], format, n, w.k).T for i, (format, n) in enumerate(s.parts)]
        return outs[0].cat(*outs[1:], dim=-1) if len(outs) > 1 else outs[0]

    return lambda: {str(i): _raw(rng, format, n, w.k) for i, (format, n) in enumerate(s.parts)}, run


def _gate_up(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = GateUp.from_workload(w)
    x, norm = _random(rng, w.m, w.k), _random(rng, w.k)

    def run(p: Weights) -> Tensor:
        inside = x if s.eps is None else _rms(x, norm, s.eps)
        halves = [inside @ _dense(p[name], f, w.n, w.k).T for name, f in (("gate", w.format), ("up", s.up))]
        return _act(s.act, *halves)

    return lambda: {name: _raw(rng, f, w.n, w.k) for name, f in (("gate", w.format), ("up", s.up))}, run


def _expert_linear(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = ExpertLinear.from_workload(w)
    experts, used, down = s.experts, s.used, not s.gated
    ids = Tensor(rng.permutation(experts)[:used].astype(np.int32).reshape(1, used)).realize()
    x = _random(rng, 1, used if down else 1, w.k)
    probs, residual = _random(rng, 1, used), _random(rng, 1, w.n)
    formats = s.formats

    def run(p: Weights) -> Tensor:
        outs = [
            (x.unsqueeze(-2) @ _dense(p[name], f, experts, w.n, w.k)[ids].transpose(-1, -2)).contiguous().squeeze(-2)
            for name, f in formats.items()
        ]
        return (outs[0] * probs.unsqueeze(-1)).sum(1) + residual if down else _act(s.act, *outs)

    return lambda: {name: _raw(rng, f, experts * w.n, w.k) for name, f in formats.items()}, run


def _head_linear(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    heads = HeadLinear.from_workload(w).heads
    x = _random(rng, heads, 1, w.k)
    return (
        lambda: {"w": _raw(rng, w.format, heads * w.n, w.k)},
        lambda p: x @ _dense(p["w"], w.format, heads, w.n, w.k).transpose(-1, -2),
    )


def _topk(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = TopK.from_workload(w)

    def run(p: Weights) -> Tensor:
        scores = p["logits"].sigmoid() if s.gating == "sigmoid" else p["logits"].softmax(-1)
        values, ids = scores.topk(s.used)
        values = values / values.sum(-1, keepdim=True) if s.norm else values
        return values.cat(ids.float(), dim=-1)

    return lambda: {"logits": _random(rng, w.m, w.n)}, run


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """q [heads, 1, d], k and v [kv_heads, ctx, d]."""
    group = int(q.shape[0]) // int(k.shape[0])
    k, v = (t.unsqueeze(1).expand(-1, group, -1, -1).reshape(q.shape[0], *t.shape[1:]) for t in (k, v))
    return (q @ k.float().transpose(-1, -2) * scale).softmax(-1) @ v.float()


def _cache(rng: np.random.Generator, *shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape, dtype=np.float32).astype(np.float16)).realize()


def _flash_decode(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = FlashDecode.from_workload(w)
    q = _random(rng, s.heads, 1, s.head_dim)
    return (
        lambda: {
            "k": _cache(rng, s.kv_heads, s.max_ctx, s.head_dim),
            "v": _cache(rng, s.kv_heads, s.max_ctx, s.v_head_dim),
        },
        lambda p: _attention(q, p["k"][:, : s.ctx], p["v"][:, : s.ctx], s.scale),
    )


def _mla_decode(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = MlaDecode.from_workload(w)
    q = _random(rng, s.heads, 1, w.k)

    def run(p: Weights) -> Tensor:
        latent = p["cache"][:, : s.ctx]
        return _attention(q, latent, latent[:, :, : s.kv_lora], s.scale)

    return lambda: {"cache": _cache(rng, 1, s.max_ctx, w.k)}, run


def _rotate(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table.chunk(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return (a * cos - b * sin).cat(b * cos + a * sin, dim=-1)


def _rope_cache_store(
    w: Workload, rng: np.random.Generator
) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = RopeCacheStore.from_workload(w)
    heads, kv, d, rope, at = s.heads, s.kv_heads, s.head_dim, s.rope_dim, 1000
    qkv, table, norm = _random(rng, 1, heads + 2 * kv, d), _random(rng, 1, 1, rope), _random(rng, d)

    def run(p: Weights) -> Tensor:
        q, k, v = qkv[:, :heads], qkv[:, heads : heads + kv], qkv[:, heads + kv :]
        q, k = (t if s.eps is None else _rms(t, norm, s.eps) for t in (q, k))
        q, k = (_rotate(t[..., :rope], table).cat(t[..., rope:], dim=-1) for t in (q, k))
        p["cache"][:, :, at : at + 1].assign(Tensor.stack(k.transpose(0, 1), v.transpose(0, 1)).half()).realize()
        return q

    return lambda: {"cache": _cache(rng, 2, kv, s.max_ctx, d)}, run


def _mla_cache_store(
    w: Workload, rng: np.random.Generator
) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    s = MlaCacheStore.from_workload(w)
    rope, lora, nope, at = s.rope_dim, s.kv_lora, s.qk_nope, 1000
    q, kv = _random(rng, s.heads, 1, nope + rope), _random(rng, 1, 1, lora + rope)
    table, norm = _random(rng, 1, 1, rope), _random(rng, lora)

    def run(p: Weights) -> Tensor:
        latent = _rms(kv[..., :lora], norm, s.eps).cat(_rotate(kv[..., lora:], table), dim=-1)
        p["cache"][:, at : at + 1].assign(latent.half()).realize()
        return q[..., :nope].cat(_rotate(q[..., nope:], table), dim=-1)

    return lambda: {"cache": _cache(rng, 1, s.max_ctx, lora + rope)}, run


def _rmsnorm(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    x = _random(rng, w.m, w.n)
    return lambda: {"w": _random(rng, w.n)}, lambda p: _rms(x, p["w"], RmsNorm.from_workload(w).eps)


def _embed(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    ids = Tensor([w.n // 3], dtype=dtypes.int32).realize()
    return lambda: {"w": _raw(rng, w.format, w.n, w.k)}, lambda p: _dense(p["w"], w.format, w.n, w.k)[ids]


def _argmax(w: Workload, rng: np.random.Generator) -> tuple[Callable[[], Weights], Callable[[Weights], Tensor]]:
    return lambda: {"x": _random(rng, w.m, w.n)}, lambda p: p["x"].argmax(-1)


OPS: dict[str, Build] = {
    "linear": _linear,
    "rmsnorm_linear": _rmsnorm_linear,
    "gate_up": _gate_up,
    "expert_linear": _expert_linear,
    "head_linear": _head_linear,
    "topk": _topk,
    "flash_decode": _flash_decode,
    "mla_decode": _mla_decode,
    "rope_cache_store": _rope_cache_store,
    "mla_cache_store": _mla_cache_store,
    "rmsnorm": _rmsnorm,
    "embed": _embed,
    "argmax": _argmax,
}
"""Op -> (a function that makes one set of weights, the expression over it). `flash_combine` is part of attention."""


def lowered(w: Workload, rounds: int = 10) -> Lowered:
    """Runs tinygrad's lowering of a workload's maths in a captured function with cold weights, and counts its launches.

    Seconds are by the wall clock over `rounds` calls, each of which uses every copy of the weights. They include the
    host's share of a launch, as in a captured decode step.
    """
    make, run = OPS[w.op](w, np.random.default_rng(0))
    first = make()
    nbytes = sum(int(t.nbytes()) for t in first.values())
    sets = [first, *(make() for _ in range(max(1, min(MAX_COPIES, COPIES_NBYTES // nbytes)) - 1))]

    found = captured(lambda: [run(p) for p in sets], len(sets), rounds)
    return Lowered(round(found.launches), found.seconds)
