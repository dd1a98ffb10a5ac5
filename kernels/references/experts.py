"""What the ops of a mixture of experts must compute, in float64 and whole numbers: one token at a time, or sorted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from db.records import Workload
from kernels.references.case import Array, Case, Doubles, InputsError, Truth
from kernels.references.gated import row_norms
from kernels.references.linear import activations, distinct_rows, finished, gated, planes


def _routed(w: Workload, rng: np.random.Generator) -> tuple[int, int, Array]:
    """experts, used, and ids int32 [m, used], a token's all different. Half of the tokens use the same experts; one
    expert is not used, where there are others."""
    extra = dict(w.extra)
    experts, used = int(extra["experts"]), int(extra["used"])
    there = rng.permutation(experts)[: max(used, experts - 1)]
    ids = np.stack([there[:used] if token % 2 else rng.permutation(there)[:used] for token in range(w.m)])
    return experts, used, ids.astype(np.int32)


def expert_linear(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    if extra.get("form") not in ("gate_up", "down"):
        raise InputsError(f"expert_linear has the forms gate_up and down, saw {extra.get('form')!r}")
    return _expert_gate_up(w, rng) if extra["form"] == "gate_up" else _expert_down(w, rng)


class _Experts:
    """Stacked weights [experts * n, k] whose distinct rows repeat, and one expert of them at a time. bias: the name of
    an operand that each has one in."""

    def __init__(self, w: Workload, name: str, format: str, bias: str | None, rng: np.random.Generator) -> None:
        experts = int(dict(w.extra)["experts"])
        self._n = w.n
        raw, self._weight = distinct_rows(format, experts * w.n, w.k, rng)
        self.arrays = planes(name, format, raw, (experts * w.n, w.k))
        self.bias: Array | None = None
        if bias is not None:
            self.bias = self.arrays[bias] = rng.standard_normal((experts, w.n), dtype=np.float32)

    def __call__(self, expert: int, x: Doubles) -> tuple[Doubles, Doubles]:
        """W x + bias of one expert for x [..., k], and what is typical for it, both [..., n]."""
        weight = self._weight[(expert * self._n + np.arange(self._n)) % len(self._weight)]
        bias = np.zeros(self._n) if self.bias is None else self.bias[expert].astype(np.float64)
        return x @ weight.T + bias, np.linalg.norm(weight, axis=1) * row_norms(x)[..., None] + np.abs(bias)


def _expert_gate_up(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    act = str(extra.get("act", "silu"))
    _, used, ids = _routed(w, rng)
    x = activations((w.m, w.k), w.x_dtype, rng)
    formats = {"gate": w.format, "up": str(extra.get("up", w.format))}
    biases = {name: f"{name}_bias" if extra.get("bias", 0) else None for name in formats}
    gate, up = (_Experts(w, name, format, biases[name], rng) for name, format in formats.items())
    out, scale = np.zeros((w.m, used, w.n)), np.zeros((w.m, used))
    for token, slot in np.ndindex(w.m, used):
        (g, g_scale), (u, u_scale) = (e(int(ids[token, slot]), x[token].astype(np.float64)) for e in (gate, up))
        out[token, slot] = gated(act, g, u)
        scale[token, slot] = np.max(g_scale * (u_scale + (act == "swiglu_oai")))
    return Case({**gate.arrays, **up.arrays, "x": x, "ids": ids}, {"out": Truth.of(out, scale)})


def _expert_down(w: Workload, rng: np.random.Generator) -> Case:
    _, used, ids = _routed(w, rng)
    x = activations((w.m, used, w.k), w.x_dtype, rng)
    probs = rng.uniform(0.05, 0.5, (w.m, used)).astype(np.float32)
    down = _Experts(w, "w", w.format, "down_bias" if dict(w.extra).get("bias", 0) else None, rng)
    out, scale = np.zeros((w.m, w.n)), np.zeros((w.m, w.n))
    for token, slot in np.ndindex(w.m, used):
        value, typical = down(int(ids[token, slot]), x[token, slot].astype(np.float64))
        out[token] += probs[token, slot] * value
        scale[token] += probs[token, slot] * typical
    case = Case({**down.arrays, "x": x, "ids": ids, "probs": probs}, {"out": Truth.of(out, scale.max(1))})
    return finished(w, case, rng)


def _sorted(ids: Array, experts: int) -> tuple[Array, Array]:
    """places int32 [m * used] of the pairs of ids [m, used], and the tiles int32 [tiles * size] that they make."""
    (m, _), chosen = ids.shape, ids.reshape(-1)
    size = 32 if m >= 256 else 16
    places = np.zeros(len(chosen), np.int32)
    tiles = np.full((len(chosen) // size + experts) * size, -1, np.int32)
    done = 0
    for expert in range(experts):
        pairs = np.flatnonzero(chosen == expert)
        places[pairs] = (done // size + expert) * size + np.arange(len(pairs))
        done += len(pairs)
    tiles[places] = np.arange(len(chosen))
    return places, tiles


def expert_places(w: Workload, rng: np.random.Generator) -> Case:
    experts, _, ids = _routed(w, rng)
    places, _ = _sorted(ids, experts)
    return Case({"ids": ids.reshape(-1)}, {"places": Truth.exactly(places[None])})


def expert_tiles(w: Workload, rng: np.random.Generator) -> Case:
    experts, _, ids = _routed(w, rng)
    places, tiles = _sorted(ids, experts)
    return Case({"places": places}, {"tiles": Truth.exactly(tiles[None])})


def expert_product(w: Workload, rng: np.random.Generator) -> Case:
    experts, used, ids = _routed(w, rng)
    chosen, shares = ids.reshape(-1), used if dict(w.extra)["of"] == "token" else 1
    x = activations((len(chosen) // shares, w.k), w.x_dtype, rng)
    weights = _Experts(w, "w", w.format, "bias" if "bias" in w.epilogue else None, rng)
    out, scale = np.zeros((len(chosen), w.n)), np.zeros(len(chosen))
    for expert in range(experts):
        pairs = np.flatnonzero(chosen == expert)
        if len(pairs):
            out[pairs], typical = weights(expert, x[pairs // shares].astype(np.float64))
            scale[pairs] = typical.max(1)
    _, tiles = _sorted(ids, experts)
    case = Case({**weights.arrays, "x": x, "tiles": tiles, "ids": chosen}, {"out": Truth.of(out, scale)})
    return finished(replace(w, epilogue="gate" if "gate" in w.epilogue else "none"), case, rng)


def expert_sum(w: Workload, rng: np.random.Generator) -> Case:
    used = int(dict(w.extra)["used"])
    x = activations((w.m, used, w.n), w.x_dtype, rng)
    probs = rng.uniform(0.05, 0.5, (w.m, used)).astype(np.float32)
    out = np.einsum("ts,tsn->tn", probs.astype(np.float64), x.astype(np.float64))
    case = Case({"x": x, "probs": probs}, {"out": Truth.of(out, np.linalg.norm(probs, axis=1))})
    return finished(w, case, rng)
