"""The launches of a plan as calls of the public functions over Tensors: a workload says what the function is given.

Nothing here is computed: tensors are empty, of the shapes and dtypes that the workload's operands have.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import kernels
from db.records import Workload
from kernels.api import attention, fused, router, small
from kernels.ops.registry import OPS
from support.given_tensors import Given

Run = tuple[Workload, ...]


def public_functions() -> dict[str, Callable[..., object]]:
    """Every function of this library that takes Tensors and returns Tensors, by its name."""
    found: dict[str, Callable[..., object]] = {"kernels.linear": kernels.linear}
    for module in (fused, attention, router, small):
        found |= {f"{module.__name__}.{name}": f for name, f in vars(module).items() if _is_public(module, name, f)}
    return found


def _is_public(module: ModuleType, name: str, f: object) -> bool:
    inside = inspect.isfunction(f) and f.__module__.startswith(module.__name__) and not name.startswith("_")
    return inside and "Tensor" in inspect.get_annotations(f)["return"]  # type: ignore[arg-type]


def runs(workloads: Sequence[Workload]) -> Iterator[Run]:
    """A pass's workloads in order, in runs of those that one call launches."""
    at = 0
    while at < len(workloads):
        yield (run := tuple(workloads[at : at + _length(workloads[at:])]))
        at += len(run)


def call(run: Run, device: str) -> partial[object]:
    """What launches them."""
    return _CALLS[run[0].op](Given(run[0], device), run)


def _length(rest: Sequence[Workload]) -> int:
    if rest[0].op == "expert_places":
        return 6
    return 2 if len(rest) > 1 and rest[1].op == "flash_combine" else 1


def _linear(g: Given, _: Run) -> partial[object]:
    if g.w.epilogue == "none":
        return partial(kernels.linear, g["x"], g.own)
    if "gate" in g.shapes:
        return partial(fused.linear_gate, g["x"], g.own, g["gate"], g.spec.act, **g.some(bias="bias"))
    return partial(fused.linear_add, g["x"], g.own, **g.some(residual="residual", bias="bias"))


def _rmsnorm_linear(g: Given, _: Run) -> partial[object]:
    weights = [g.weight(format, n, g.w.k) for format, n in g.spec.parts]
    return partial(fused.rmsnorm_linear, g["x"], g["norm"], weights, g.eps, **g.some(bias="bias"))


def _gate_up(g: Given, _: Run) -> partial[object]:
    up = g.weight(g.spec.up, g.w.n, g.w.k)
    return partial(fused.gate_up, g["x"], g.own, up, g.spec.act, eps=g.eps, **g.some(norm="norm"))


def _head_linear(g: Given, _: Run) -> partial[object]:
    heads = g.spec.heads
    w = g.weight(g.w.format, heads * g.w.n, g.w.k)
    if g.spec.row == heads * g.w.k:
        return partial(fused.head_linear, g.rows("x").reshape(g.w.m, heads, g.w.k), w)
    return partial(fused.head_linear, g["x"], w, heads=heads, step=g.spec.step)


def _expert_linear(g: Given, _: Run) -> partial[object]:
    experts = g.spec.experts
    if g.spec.gated:
        gate, up = g.stacked(g.w), g.stacked(g.w, g.spec.up)
        biases = g.some(gate_bias="gate_bias", up_bias="up_bias")
        return partial(fused.expert_gate_up, g["x"], g.ids, gate, up, experts, g.spec.act, **biases)
    more = g.some(residual="residual", bias="down_bias")
    return partial(fused.expert_down, g["x"], g.ids, g["probs"], g.stacked(g.w), experts, **more)


def _mixture(g: Given, run: Run) -> partial[object]:
    """places, tiles, the products of gate, up and down, the sum"""
    *_, gate, up, down, summed = run
    biased = {"gate_bias": gate, "up_bias": up, "down_bias": down}
    biases = {name: g.tensor(g.w.n, w.n, dtype="float32") for name, w in biased.items() if "bias" in w.epilogue}
    residual = g.tensor(g.w.m, summed.n, dtype=summed.out_dtype) if summed.epilogue == "add" else None
    weights = [g.stacked(w) for w in (gate, up, down)]
    x, probs = g.tensor(g.w.m, gate.k, dtype=gate.x_dtype), g.tensor(*g.ids.shape, dtype="float32")
    act = OPS[up.op].spec.from_workload(up).act  # type: ignore[attr-defined]
    return partial(fused.mixture, x, g.ids, probs, *weights, g.w.n, act, residual, **biases)


def _expert_sum(g: Given, _: Run) -> partial[object]:
    return partial(fused.expert_sum, g["x"], g["probs"], **g.some(residual="residual"))


def _topk(g: Given, _: Run) -> partial[object]:
    s = g.spec
    more = {name: getattr(s, name) for name in ("norm", "scale", "groups", "used_groups")}
    return partial(router.topk, g["logits"], s.used, s.gating, **g.some(bias="bias"), **more)


def _flash(g: Given, run: Run) -> partial[object]:
    s = g.spec
    decode = g.w.op == "flash_decode"
    q = g["q"].reshape(*(() if decode else (g.w.m,)), s.heads, s.head_dim)
    more = {"scale": s.scale, "window": s.window, "softcap": s.softcap or 0.0, **g.some(sinks="sinks")}
    function = attention.flash_decode if decode else attention.flash_prefill
    return partial(function, q, g["k"], g["v"], 0, **more)


def _mla(g: Given, run: Run) -> partial[object]:
    decode = g.w.op == "mla_decode"
    lead, heads = () if decode else (g.w.m,), g.spec.heads
    q_latent, q_rope = (g[name].reshape(*lead, heads, -1) for name in ("q_latent", "q_rope"))
    function = attention.mla_decode if decode else attention.mla_prefill
    return partial(function, q_latent, q_rope, g["cache"], 0, scale=g.spec.scale)


def _rope_cache_store(g: Given, _: Run) -> partial[object]:
    norms = (g["q_norm"], g["k_norm"]) if g.spec.eps is not None else None
    turns = g.spec.mode != "none"
    more = {**({"mode": g.spec.mode} if turns else {}), "norms": norms, "eps": g.eps}
    qkv, angles = g.rows("qkv"), (g["cos"], g["sin"]) if turns else None
    return partial(attention.rope_cache_store, qkv, g["k_cache"], g["v_cache"], angles, 0, **more)


def _mla_cache_store(g: Given, _: Run) -> partial[object]:
    s = g.spec
    rows: dict[str, Any] = {"heads": s.heads, "head_dim": s.qk_nope + s.rope_dim}
    more = {**rows, "kv_start": s.kv_start, "mode": s.mode, "eps": g.eps}
    angles = g["cos"], g["sin"]
    return partial(attention.mla_cache_store, g["q"], g["kv"], g["cache"], g["kv_norm"], angles, 0, **more)


def _rmsnorm(g: Given, _: Run) -> partial[object]:
    return partial(small.rmsnorm, g["x"], g["weight"], g.eps, **g.some(residual="residual"))


def _embed(g: Given, _: Run) -> partial[object]:
    return partial(small.embed, g["ids"], g.own, scale=g.spec.scale, dtype=g.w.out_dtype)


def _argmax(g: Given, _: Run) -> partial[object]:
    return partial(small.argmax, g["logits"])


_CALLS: dict[str, Callable[[Given, Run], partial[object]]] = {
    "linear": _linear,
    "rmsnorm_linear": _rmsnorm_linear,
    "gate_up": _gate_up,
    "head_linear": _head_linear,
    "expert_linear": _expert_linear,
    "expert_places": _mixture,
    "expert_sum": _expert_sum,
    "topk": _topk,
    "flash_decode": _flash,
    "flash_prefill": _flash,
    "mla_decode": _mla,
    "mla_prefill": _mla,
    "rope_cache_store": _rope_cache_store,
    "mla_cache_store": _mla_cache_store,
    "rmsnorm": _rmsnorm,
    "rmsnorm_add": _rmsnorm,
    "embed": _embed,
    "argmax": _argmax,
}
