"""What `rmsnorm_linear`, `gate_up` and `head_linear` must compute, written out in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from db.records import Workload
from kernels.ops.case import Array, Doubles, Inputs, Truth, Truths
from kernels.ops.linear.reference import activations, epilogue_inputs, finished, gated, random_rows


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


def draw_rmsnorm_linear(w: Workload, rng: np.random.Generator) -> Inputs:
    x = activations((w.m, int(dict(w.extra).get("x_row", w.k))), w.x_dtype, rng)
    arrays = {"x": x, "norm": _norm(w.k, rng), **epilogue_inputs(w, w.m, rng)}
    parts = (part.split(".") for part in str(dict(w.extra).get("parts", f"{w.format}.{w.n}")).split("+"))
    return Inputs(arrays, {f"w{i}": random_rows(format, int(n), w.k, rng) for i, (format, n) in enumerate(parts)})


def rmsnorm_linear(w: Workload, inputs: Inputs) -> Truths:
    inside = normalised(w, inputs.doubles("x")[:, : w.k], inputs.arrays["norm"])
    columns, lengths = [], []
    for i in range(len(inputs.weights)):
        weight = inputs.weights[f"w{i}"]
        at = np.arange(weight.n) % len(weight.raw)
        product, norms = weight.times(inside)
        columns.append(product[:, at])
        lengths.append(norms[at])
    return finished(w, inputs, Truth(np.concatenate(columns, 1), row_norms(inside), np.concatenate(lengths), w.n))


def draw_gate_up(w: Workload, rng: np.random.Generator) -> Inputs:
    extra = dict(w.extra)
    arrays = {"x": activations((w.m, w.k), w.x_dtype, rng)}
    if extra.get("norm", "none") == "rms":
        arrays["norm"] = _norm(w.k, rng)
    formats = {"gate": w.format, "up": str(extra.get("up", w.format))}
    return Inputs(arrays, {name: random_rows(format, w.n, w.k, rng) for name, format in formats.items()})


def gate_up(w: Workload, inputs: Inputs) -> Truths:
    extra, inside = dict(w.extra), inputs.doubles("x")
    if extra.get("norm", "none") == "rms":
        inside = normalised(w, inside, inputs.arrays["norm"])
    (gate, gate_norms), (up, up_norms) = (inputs.weights[name].times(inside) for name in ("gate", "up"))
    truth = gated(str(extra.get("act", "silu")), gate, up)
    return {"out": Truth(truth, row_norms(inside) ** 2, gate_norms * up_norms, w.n)}


def draw_head_linear(w: Workload, rng: np.random.Generator) -> Inputs:
    extra = dict(w.extra)
    heads = int(extra["heads"])
    row = int(extra.get("row", heads * int(extra.get("step", w.k))))
    weight = random_rows(w.format, heads * w.n, w.k, rng)
    return Inputs({"x": activations((w.m, row), w.x_dtype, rng)}, {"w": weight})


def head_linear(w: Workload, inputs: Inputs) -> Truths:
    extra, wide = dict(w.extra), inputs.doubles("x")
    heads, step = int(extra["heads"]), int(extra.get("step", w.k))
    out, scale = np.zeros((w.m, heads, w.n)), np.zeros((w.m, heads))
    for head in range(heads):
        rows = inputs.weights["w"].rows(head * w.n + np.arange(w.n))
        x = wide[:, head * step : head * step + w.k]
        out[:, head] = x @ rows.T
        scale[:, head] = np.linalg.norm(rows, axis=1).max() * row_norms(x)
    return {"out": Truth.of(out, scale)}
