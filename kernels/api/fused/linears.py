"""Dense linears fused with the operations before and after them, in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tinygrad import Tensor

from kernels.api.arguments import FLOATS, ArgumentError, given, packed, shown, sizes
from kernels.api.fused.workload import bucket, epilogue, tokens
from kernels.api.launch import launch
from kernels.api.packed import PackedWeight
from kernels.api.scalars import scalars
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear, RmsNormLinear


def linear_add(x: Tensor, w: PackedWeight, residual: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x [m, k] times w [n, k] transposed, plus bias [n] and residual [m, n]: [m, n]."""
    packed("linear_add", w=w)
    m, name = tokens("linear_add", x, "[m, k]", w.shape[1]), epilogue(bias=bias, add=residual)
    asked = Linear(w.format, *w.shape, name).workload(m, FLOATS[x.dtype])
    return launch(asked, w.device, {"w": w.planes, "x": x, **given(bias=bias, residual=residual)})[0]


@scalars
def linear_gate(x: Tensor, w: PackedWeight, gate: Tensor, act: str = "silu", bias: Tensor | None = None) -> Tensor:
    """act(gate [m, n]) * (x [m, k] times w [n, k] transposed, plus bias [n]): [m, n]. For many tokens this is the
    second half of a gated feed-forward; for one token `gate_up` computes both halves in one launch."""
    packed("linear_gate", w=w)
    m, name = tokens("linear_gate", x, "[m, k]", w.shape[1]), epilogue(bias=bias, gate=gate)
    asked = Linear(w.format, *w.shape, name, act).workload(m, FLOATS[x.dtype])
    return launch(asked, w.device, {"w": w.planes, "x": x, "gate": gate, **given(bias=bias)})[0]


@scalars
def rmsnorm_linear(
    x: Tensor, norm: Tensor, weights: Sequence[PackedWeight], eps: float, bias: Tensor | None = None
) -> Tensor:
    """RMSNorm of x [m, k] (norm [k]), then every weight [n_i, k], plus bias: [m, sum of n_i]. Adjacent weights in one
    format must be passed as one weight. x may have more than k columns: only the first k are read."""
    op = "rmsnorm_linear"
    if not isinstance(weights, list | tuple) or not weights:
        raise ArgumentError(f"{op}: weights is {shown(weights)}, expected a list of one PackedWeight or more")
    packed(op, **{f"weights[{i}]": w for i, w in enumerate(weights)})
    first, formats = weights[0], [w.format for w in weights]
    if any(len(list(group)) > 1 for _, group in groupby(formats)):
        raise ArgumentError(f"{op}: adjacent weights have the same format in {formats}: stack them into one")
    k = first.shape[1]
    if others := [w.shape for w in weights if w.shape[1] != k]:
        raise ArgumentError(f"{op}: weights of shapes {first.shape} and {others[0]} have different k")
    m, row = sizes(op, "x", x, "[m, k]")
    if row < k:
        raise ArgumentError(f"{op}: x of shape {x.shape} has fewer than k={k} columns, the k of the weights")
    spec = RmsNormLinear(tuple((w.format, w.shape[0]) for w in weights), k, row, eps, epilogue(bias=bias))
    asked = spec.workload(bucket(op, x, m), FLOATS[x.dtype])
    planes = {f"w{i}": w.planes for i, w in enumerate(weights)}
    return launch(asked, first.device, {**planes, "x": x, "norm": norm, **given(bias=bias)})[0]


@scalars
def gate_up(
    x: Tensor, gate: PackedWeight, up: PackedWeight, act: str = "silu", norm: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """act(gate x) * (up x) for x [m, k]: [m, n]. If `norm` [k] is given, x is normalised by RMSNorm first."""
    packed("gate_up", gate=gate, up=up)
    if up.shape != gate.shape:
        raise ArgumentError(f"gate_up: gate of shape {gate.shape} and up of shape {up.shape} have different shapes")
    m = tokens("gate_up", x, "[m, k]", gate.shape[1])
    spec = GateUp(gate.format, *gate.shape, up.format, act, None if norm is None else eps)
    asked = spec.workload(m, FLOATS[x.dtype])
    read = {"gate": gate.planes, "up": up.planes, "x": x, **given(norm=norm)}
    return launch(asked, gate.device, read)[0]


@scalars
def head_linear(x: Tensor, w: PackedWeight, *, heads: int | None = None, step: int | None = None) -> Tensor:
    """For each head, its matrix of w [heads * n, k] times its row of x [m, heads, k]: [m, heads, n].

    If `heads` is given, x is [m, row] and head h reads the k columns from h * step on. step is k by default.
    """
    op = "head_linear"
    packed(op, w=w)
    rows, k = w.shape
    if heads is None:
        heads = sizes(op, "x", x, "[m, heads, k]")[1]
        m, row = tokens(op, x, "[m, heads, k]", k), heads * k
    else:
        m, row = sizes(op, "x", x, "[m, row]")
        bucket(op, x, m)
    if heads < 1 or rows % heads:
        raise ArgumentError(f"{op}: w of shape {w.shape} is not [heads * n, k] of {heads} heads")
    spec = HeadLinear(w.format, rows // heads, k, heads, k if step is None else step, row)
    asked = spec.workload(m, FLOATS[x.dtype])
    return launch(asked, w.device, {"w": w.planes, "x": x})[0]
