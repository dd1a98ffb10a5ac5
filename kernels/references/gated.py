"""What `rmsnorm_linear`, `gate_up` and `head_linear` must compute, written out in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from db.records import Workload
from kernels.references.case import Array, Case, Doubles, Truth
from kernels.references.linear import activations, distinct_rows, finished, gated, planes


def normalised(w: Workload, x: Doubles, norm: Array) -> Doubles:
    """RMSNorm of x [m, k] with the extra eps, times norm [k]."""
    rms = np.sqrt(np.square(x).mean(-1, keepdims=True) + float(str(dict(w.extra)["eps"])))
    result: Doubles = x / rms * norm.astype(np.float64)
    return result


def _norm(k: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.uniform(0.5, 1.5, k).astype(np.float32)


def row_norms(x: Doubles) -> Doubles:
    """Norms of rows over sqrt(k): of x so that times a weight row's norm it is a product's typical size."""
    norms: Doubles = np.linalg.norm(x, axis=-1) / np.sqrt(x.shape[-1])
    return norms


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
    truth = Truth(np.concatenate(columns, 1), row_norms(inside), np.concatenate(lengths), w.n)
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
    return Case(arrays, {"out": Truth(reference, row_norms(inside) ** 2, norms[0] * norms[1], w.n)})


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
        scale[token, head] = np.linalg.norm(rows, axis=1).max() * row_norms(x[token, head].astype(np.float64))
    return Case({**planes("w", w.format, raw, (heads * w.n, w.k)), "x": wide}, {"out": Truth.of(out, scale)})
