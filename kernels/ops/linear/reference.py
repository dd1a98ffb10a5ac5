"""The reference of `linear`, the dequantised weight times x in float64, and those of the epilogues."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels.formats import reference
from kernels.ops.case import Array, Doubles, Inputs, PackedRows, Truth, Truths
from kernels.ops.linear.spec import Linear

# A weight has at most this many distinct rows, which repeat: the float64 reference of 128256 rows would take seconds.
# The number is prime, so that a kernel that confuses rows a power of two (or a tile) apart is still found wrong.
DISTINCT_ROWS = 1021


def activations(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    """Normally distributed values."""
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)


def random_rows(format: str, n: int, k: int, rng: np.random.Generator) -> PackedRows:
    """A weight [n, k] of at most DISTINCT_ROWS distinct random rows."""
    return PackedRows(format, reference.random_blocks(format, min(n, DISTINCT_ROWS), k, rng), n, k)


def _sigmoid(x: Doubles) -> Doubles:
    result: Doubles = 1 / (1 + np.exp(-np.clip(x, -700, 700)))
    return result


def _silu(x: Doubles) -> Doubles:
    return x * _sigmoid(x)


def _gelu(x: Doubles) -> Doubles:
    result: Doubles = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def gated(act: str, gate: Doubles, up: Doubles) -> Doubles:
    """act(gate) * up. swiglu_oai, the activation of gpt-oss, clamps gate and up."""
    if act == "swiglu_oai":
        gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0)
        return gate * _sigmoid(1.702 * gate) * (up + 1)
    product: Doubles = {"silu": _silu, "gelu": _gelu}[act](gate) * up
    return product


def epilogue_inputs(w: Workload, m: int, rng: np.random.Generator) -> dict[str, Array]:
    """The operands of the epilogue of a workload, for m rows of results: bias [n], residual and gate [m, n]."""
    found: dict[str, Array] = {}
    if "bias" in w.epilogue:
        found["bias"] = rng.standard_normal(w.n, dtype=np.float32)
    if "add" in w.epilogue:
        found["residual"] = activations((m, w.n), w.out_dtype, rng)
    if "gate" in w.epilogue:
        found["gate"] = activations((m, w.n), w.out_dtype, rng)
    return found


def finished(w: Workload, inputs: Inputs, truth: Truth, act: str = "silu", *, bias: bool = True) -> Truths:
    """The output after the epilogue. act: the activation of a gate. bias: False if the bias has already been added."""
    if w.epilogue == "none":
        return {"out": truth}
    value, scale = truth.rows(0, truth.m)
    rows, columns = np.ones(truth.m), scale.max(0)
    for name in ("bias",) * ("bias" in w.epilogue and bias) + ("residual",) * ("add" in w.epilogue):
        term = inputs.doubles(name).reshape(-1, w.n)
        value = value + term
        columns = np.maximum(columns, np.sqrt(np.square(term).mean()))  # a sum is only as exact as its larger term
    if "gate" in w.epilogue:
        gate = inputs.doubles("gate").reshape(truth.m, w.n)
        value = gated(act, gate, value)
        rows = np.sqrt(np.square(gate).mean(1))
    return {"out": Truth(value, rows, columns, w.n)}


def draw(w: Workload, rng: np.random.Generator) -> Inputs:
    weight = random_rows(w.format, w.n, w.k, rng)
    x = activations((w.m, w.k), w.x_dtype, rng)
    return Inputs({"x": x, **epilogue_inputs(w, w.m, rng)}, {"w": weight})


def linear(w: Workload, inputs: Inputs) -> Truths:
    x = inputs.doubles("x")
    product, norms = inputs.weights["w"].times(x)
    return finished(
        w, inputs, Truth(product, np.linalg.norm(x, axis=1) / np.sqrt(w.k), norms, w.n), Linear.from_workload(w).act
    )
