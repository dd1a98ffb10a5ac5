"""What `linear` must compute: the dequantised weight times x, in float64."""

from __future__ import annotations

import numpy as np

from db.records import Workload
from kernels import reference
from kernels.formats import get_format, split_planes
from kernels.references.case import Array, Case, Doubles, InputsError, Truth
from kernels.unpack import tables

# At most this many distinct weight rows, then they repeat: the float64 reference of a 128256-row weight would cost
# seconds. Prime, so that a kernel that confuses rows a power of two (or any tile size) apart is still caught.
DISTINCT_ROWS = 1021


def activations(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    """Normal values. Raises InputsError for a dtype that activations do not have."""
    if dtype not in ("float32", "float16"):
        raise InputsError(f"x_dtype {dtype!r}: only float32 and float16 activations can be made")
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)


def distinct_rows(format: str, n: int, k: int, rng: np.random.Generator) -> tuple[Array, Doubles]:
    """Random rows of a weight, uint8 [r, row_nbytes] and float64 [r, k], r the smaller of n and DISTINCT_ROWS."""
    rows = min(n, DISTINCT_ROWS)
    raw = reference.random_blocks(format, rows, k, rng)
    return raw, reference.dequantize(raw, format, (rows, k)).astype(np.float64)


def planes(prefix: str, format: str, raw: Array, shape: tuple[int, int]) -> dict[str, Array]:
    """The operands of a weight [n, k] whose rows repeat `raw`."""
    whole = split_planes(raw[np.arange(shape[0]) % len(raw)], format, shape)
    arrays = zip(get_format(format).arrays, (*whole, *tables.arrays(format)), strict=True)
    return {f"{prefix}.{a.name}": content for a, content in arrays}


def _silu(x: Doubles) -> Doubles:
    result: Doubles = x / (1 + np.exp(-np.clip(x, -700, 700)))
    return result


def _gelu(x: Doubles) -> Doubles:
    result: Doubles = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def gated(act: str, gate: Doubles, up: Doubles) -> Doubles:
    """act(gate) * up; gpt-oss's swiglu_oai clamps both."""
    if act == "swiglu_oai":
        gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0)
        swiglu: Doubles = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
        return swiglu
    product: Doubles = {"silu": _silu, "gelu": _gelu}[act](gate) * up
    return product


def finished(w: Workload, case: Case, rng: np.random.Generator) -> Case:
    """The case with what the workload's epilogue does: bias [n], residual and gate of the output's shape."""
    if w.epilogue == "none":
        return case
    truth = case.truths["out"]
    reference, scale = truth.rows(0, truth.m)
    terms: dict[str, Array] = {}
    if "bias" in w.epilogue:
        terms["bias"] = rng.standard_normal(w.n, dtype=np.float32)
        reference = reference + terms["bias"].astype(np.float64)
    if "add" in w.epilogue:
        terms["residual"] = activations((truth.m, w.n), w.out_dtype, rng)
        reference = reference + terms["residual"].astype(np.float64)
    # a sum is as exact as its larger term
    columns = np.maximum(scale.max(0), 1.0)
    if "gate" in w.epilogue:
        terms["gate"] = activations((truth.m, w.n), w.out_dtype, rng)
        reference = gated(str(dict(w.extra).get("act", "silu")), terms["gate"].astype(np.float64), reference)
    return Case({**case.arrays, **terms}, {"out": Truth(reference, np.ones(truth.m), columns, w.n)})


def linear(w: Workload, rng: np.random.Generator) -> Case:
    raw, weight = distinct_rows(w.format, w.n, w.k, rng)
    x = activations((w.m, w.k), w.x_dtype, rng)
    x64 = x.astype(np.float64)
    truth = Truth(
        reference=x64 @ weight.T,
        row_scale=np.linalg.norm(x64, axis=1) / np.sqrt(w.k),
        column_scale=np.linalg.norm(weight, axis=1),
        n=w.n,
    )
    return finished(w, Case({**planes("w", w.format, raw, (w.n, w.k)), "x": x}, {"out": truth}), rng)
