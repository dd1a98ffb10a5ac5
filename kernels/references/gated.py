"""What `rmsnorm_linear`, `gate_up`, `expert_linear` and `head_linear` must compute, written out in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from db.records import Workload
from kernels.references.case import Array, Case, Doubles, InputsError, Truth
from kernels.references.linear import activations, distinct_rows, finished, gated, planes


def normalised(w: Workload, x: Doubles, norm: Array) -> Doubles:
    """RMSNorm of x [m, k] with the extra eps, times norm [k]."""
    rms = np.sqrt(np.square(x).mean(-1, keepdims=True) + float(str(dict(w.extra)["eps"])))
    result: Doubles = x / rms * norm.astype(np.float64)
    return result


def _norm(k: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.uniform(0.5, 1.5, k).astype(np.float32)


def _lengths(x: Doubles) -> Doubles:
    """Norms of rows over sqrt(k): of x so that times a weight row's norm it is a product's typical size."""
    lengths: Doubles = np.linalg.norm(x, axis=-1) / np.sqrt(x.shape[-1])
    return lengths


def rmsnorm_linear(w: Workload, rng: np.random.Generator) -> Case:
    x = activations((w.m, int(dict(w.extra).get("x_row", w.k))), w.x_dtype, rng)
    norm = _norm(w.k, rng)
    inside = normalised(w, x[:, : w.k].astype(np.float64), norm)
    arrays: dict[str, Array] = {"x": x, "norm": norm}
    columns, lengths = [], []
    for i, part in enumerate(str(dict(w.extra).get("parts", f"{w.format}.{w.n}")).split("+")):
        format, n = part.split(".")
        raw, weight = distinct_rows(format, int(n), w.k, rng)
        arrays |= planes(f"w{i}", format, raw, (int(n), w.k))
        at = np.arange(int(n)) % len(raw)
        columns.append((inside @ weight.T)[:, at])
        lengths.append(np.linalg.norm(weight, axis=1)[at])
    truth = Truth(np.concatenate(columns, 1), _lengths(inside), np.concatenate(lengths), w.n)
    return finished(w, Case(arrays, {"out": truth}), rng)


def gate_up(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    x = activations((w.m, w.k), w.x_dtype, rng)
    inside, arrays = x.astype(np.float64), {"x": x}
    if extra.get("norm", "none") == "rms":
        arrays["norm"] = _norm(w.k, rng)
        inside = normalised(w, inside, arrays["norm"])
    halves, norms = [], []
    for name, format in (("gate", w.format), ("up", str(extra.get("up", w.format)))):
        raw, weight = distinct_rows(format, w.n, w.k, rng)
        arrays |= planes(name, format, raw, (w.n, w.k))
        halves.append(inside @ weight.T)
        norms.append(np.linalg.norm(weight, axis=1))
    reference = gated(str(extra.get("act", "silu")), *halves)
    return Case(arrays, {"out": Truth(reference, _lengths(inside) ** 2, norms[0] * norms[1], w.n)})


def _routed(w: Workload, rng: np.random.Generator) -> tuple[int, int, Array]:
    """experts, used, and distinct random ids int32 [m, used]."""
    extra = dict(w.extra)
    experts, used = int(extra["experts"]), int(extra["used"])
    ids = np.stack([rng.permutation(experts)[:used] for _ in range(w.m)])
    return experts, used, ids.astype(np.int32)


def expert_linear(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    if extra.get("form") not in ("gate_up", "down"):
        raise InputsError(f"expert_linear has the forms gate_up and down, saw {extra.get('form')!r}")
    return _expert_gate_up(w, rng) if extra["form"] == "gate_up" else _expert_down(w, rng)


class _Experts:
    """Stacked weights [experts * n, k] whose distinct rows repeat, and one expert of them at a time."""

    def __init__(self, w: Workload, name: str, format: str, rng: np.random.Generator) -> None:
        experts = int(dict(w.extra)["experts"])
        self._n = w.n
        raw, self._weight = distinct_rows(format, experts * w.n, w.k, rng)
        self.arrays = planes(name, format, raw, (experts * w.n, w.k))
        self.bias: Array | None = None
        if dict(w.extra).get("bias", 0):
            self.bias = rng.standard_normal((experts, w.n), dtype=np.float32)
            self.arrays[{"w": "down"}.get(name, name) + "_bias"] = self.bias

    def __call__(self, expert: int, x: Doubles) -> tuple[Doubles, Doubles]:
        """W x + bias of one expert, and what is typical for it, both [n]."""
        weight = self._weight[(expert * self._n + np.arange(self._n)) % len(self._weight)]
        bias = np.zeros(self._n) if self.bias is None else self.bias[expert].astype(np.float64)
        return weight @ x + bias, np.linalg.norm(weight, axis=1) * _lengths(x) + np.abs(bias)


def _expert_gate_up(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    act = str(extra.get("act", "silu"))
    _, used, ids = _routed(w, rng)
    x = activations((w.m, w.k), w.x_dtype, rng)
    gate, up = _Experts(w, "gate", w.format, rng), _Experts(w, "up", str(extra.get("up", w.format)), rng)
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
    down = _Experts(w, "w", w.format, rng)
    out, scale = np.zeros((w.m, w.n)), np.zeros((w.m, w.n))
    for token, slot in np.ndindex(w.m, used):
        value, typical = down(int(ids[token, slot]), x[token, slot].astype(np.float64))
        out[token] += probs[token, slot] * value
        scale[token] += probs[token, slot] * typical
    case = Case({**down.arrays, "x": x, "ids": ids, "probs": probs}, {"out": Truth.of(out, scale.max(1))})
    return finished(w, case, rng)


def head_linear(w: Workload, rng: np.random.Generator) -> Case:
    extra = dict(w.extra)
    heads = int(extra["heads"])
    step = int(extra.get("step", w.k))
    raw, weight = distinct_rows(w.format, heads * w.n, w.k, rng)
    wide = activations((w.m, int(extra.get("row", heads * step))), w.x_dtype, rng)
    x = np.stack([wide[:, head * step : head * step + w.k] for head in range(heads)], 1)
    out, scale = np.zeros((w.m, heads, w.n)), np.zeros((w.m, heads))
    for token, head in np.ndindex(w.m, heads):
        rows = weight[(head * w.n + np.arange(w.n)) % len(weight)]
        out[token, head] = rows @ x[token, head].astype(np.float64)
        scale[token, head] = np.linalg.norm(rows, axis=1).max() * _lengths(x[token, head].astype(np.float64))
    return Case({**planes("w", w.format, raw, (heads * w.n, w.k)), "x": wide}, {"out": Truth.of(out, scale)})
