"""The references of `rmsnorm_linear`, `gate_up` and `head_linear`, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from db.records import Workload
from kernels.ops.case import Array, Doubles, Inputs, Truth, Truths
from kernels.ops.linear.reference import activations, epilogue_inputs, finished, gated, random_rows
from kernels.ops.linear.spec import GateUp, HeadLinear, RmsNormLinear


def normalised(eps: float, x: Doubles, norm: Array) -> Doubles:
    """RMSNorm of x [m, k], times norm [k]."""
    rms = np.sqrt(np.square(x).mean(-1, keepdims=True) + eps)
    result: Doubles = x / rms * norm.astype(np.float64)
    return result


def _norm(k: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.uniform(0.5, 1.5, k).astype(np.float32)


def row_norms(x: Doubles) -> Doubles:
    """The norm of each row of x, divided by sqrt(k). Times the norm of a row of a weight it is the typical size of
    their product."""
    norms: Doubles = np.linalg.norm(x, axis=-1) / np.sqrt(x.shape[-1])
    return norms


def draw_rmsnorm_linear(w: Workload, rng: np.random.Generator) -> Inputs:
    s = RmsNormLinear.from_workload(w)
    x = activations((w.m, s.x_row), w.x_dtype, rng)
    arrays = {"x": x, "norm": _norm(w.k, rng), **epilogue_inputs(w, w.m, rng)}
    return Inputs(arrays, {f"w{i}": random_rows(format, n, w.k, rng) for i, (format, n) in enumerate(s.parts)})


def rmsnorm_linear(w: Workload, inputs: Inputs) -> Truths:
    inside = normalised(RmsNormLinear.from_workload(w).eps, inputs.doubles("x")[:, : w.k], inputs.arrays["norm"])
    columns, lengths = [], []
    for i in range(len(inputs.weights)):
        weight = inputs.weights[f"w{i}"]
        at = np.arange(weight.n) % len(weight.raw)
        product, norms = weight.times(inside)
        columns.append(product[:, at])
        lengths.append(norms[at])
    return finished(w, inputs, Truth(np.concatenate(columns, 1), row_norms(inside), np.concatenate(lengths), w.n))


def draw_gate_up(w: Workload, rng: np.random.Generator) -> Inputs:
    s = GateUp.from_workload(w)
    arrays = {"x": activations((w.m, w.k), w.x_dtype, rng)}
    if s.eps is not None:
        arrays["norm"] = _norm(w.k, rng)
    formats = {"gate": w.format, "up": s.up}
    return Inputs(arrays, {name: random_rows(format, w.n, w.k, rng) for name, format in formats.items()})


def gate_up(w: Workload, inputs: Inputs) -> Truths:
    s, inside = GateUp.from_workload(w), inputs.doubles("x")
    if s.eps is not None:
        inside = normalised(s.eps, inside, inputs.arrays["norm"])
    (gate, gate_norms), (up, up_norms) = (inputs.weights[name].times(inside) for name in ("gate", "up"))
    truth = gated(s.act, gate, up)
    return {"out": Truth(truth, row_norms(inside) ** 2, gate_norms * up_norms, w.n)}


def draw_head_linear(w: Workload, rng: np.random.Generator) -> Inputs:
    s = HeadLinear.from_workload(w)
    weight = random_rows(w.format, s.heads * w.n, w.k, rng)
    return Inputs({"x": activations((w.m, s.row), w.x_dtype, rng)}, {"w": weight})


def head_linear(w: Workload, inputs: Inputs) -> Truths:
    s, wide = HeadLinear.from_workload(w), inputs.doubles("x")
    heads, step = s.heads, s.step
    out, scale = np.zeros((w.m, heads, w.n)), np.zeros((w.m, heads))
    for head in range(heads):
        rows = inputs.weights["w"].rows(head * w.n + np.arange(w.n))
        x = wide[:, head * step : head * step + w.k]
        out[:, head] = x @ rows.T
        scale[:, head] = np.linalg.norm(rows, axis=1).max() * row_norms(x)
    return {"out": Truth.of(out, scale)}
