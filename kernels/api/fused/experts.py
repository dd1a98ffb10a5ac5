"""Mixtures of experts, which are selected on the device. Their weights are stacked: PackedWeights (experts * n, k)."""

from __future__ import annotations

from tinygrad import Tensor, dtypes

from kernels.api.arguments import FLOATS, INT, ArgumentError, fitting, given, packed, sizes
from kernels.api.fused.workload import bucket, epilogue, tokens
from kernels.api.launch import launch
from kernels.api.packed import PackedWeight
from kernels.api.scalars import scalars
from kernels.ops.experts.spec import Chosen, ExpertLinear, ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles


@scalars
def expert_gate_up(
    x: Tensor,
    ids: Tensor,
    gate: PackedWeight,
    up: PackedWeight,
    experts: int,
    act: str = "silu",
    *,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
) -> Tensor:
    """act(gate[id] x) * (up[id] x) for x [m, k] and each of ids int32 [m, used]: [m, used, n]. The biases [experts, n],
    both or neither, are added before the activation."""
    op = "expert_gate_up"
    packed(op, gate=gate, up=up)
    (used, n), k = (_used(op, ids), _rows(op, "gate", gate, experts)), gate.shape[1]
    if up.shape != gate.shape:
        raise ArgumentError(f"{op}: gate of shape {gate.shape} and up of shape {up.shape} have different shapes")
    if (gate_bias is None) != (up_bias is None):
        raise ArgumentError(f"{op}: only one of gate_bias and up_bias is given, expected both or neither")
    m, biased = tokens(op, x, "[m, k]", k), gate_bias is not None
    spec = ExpertLinear(gate.format, n, k, experts, used, "gate_up", up.format, act, biased)
    read = {"gate": gate.planes, "up": up.planes, "x": x, "ids": ids, **given(gate_bias=gate_bias, up_bias=up_bias)}
    return launch(spec.workload(m, FLOATS[x.dtype]), gate.device, read)[0]


@scalars
def expert_down(
    x: Tensor,
    ids: Tensor,
    probs: Tensor,
    w: PackedWeight,
    experts: int,
    residual: Tensor | None = None,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """The sum over used of probs [m, used] * (w[id] x [m, used, k] + bias[id]), plus residual: [m, n], in one launch.
    bias: [experts, n]."""
    op = "expert_down"
    packed(op, w=w)
    (used, n), k = (_used(op, ids), _rows(op, "w", w, experts)), w.shape[1]
    _bias(op, "bias", bias, w, experts)
    m = tokens(op, x, "[m, used, k]", k)
    added = epilogue(add=residual)
    spec = ExpertLinear(w.format, n, k, experts, used, "down", bias=bias is not None, epilogue=added)
    read = {"w": w.planes, "x": x, "ids": ids, "probs": probs, **given(down_bias=bias, residual=residual)}
    return launch(spec.workload(m, FLOATS[x.dtype]), w.device, read)[0]


@scalars
def mixture(
    x: Tensor,
    ids: Tensor,
    probs: Tensor,
    gate: PackedWeight,
    up: PackedWeight,
    down: PackedWeight,
    experts: int,
    act: str = "silu",
    residual: Tensor | None = None,
    *,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
) -> Tensor:
    """The sum over used of probs [m, used] * down[id] (act(gate[id] x) * (up[id] x)) for x [m, k] and ids int32 [m,
    used], plus residual: [m, n]. Made for many tokens: tokens of one expert share its weights. Takes six launches. Each
    bias [experts, n] is added to its product."""
    op = "mixture"
    packed(op, gate=gate, up=up, down=down)
    m, used = tokens(op, x, "[m, k]", gate.shape[1]), _used(op, ids)
    for name, w, bias in (("gate", gate, gate_bias), ("up", up, up_bias), ("down", down, down_bias)):
        _rows(op, name, w, experts)
        _bias(op, f"{name}_bias", bias, w, experts)
    dtype = FLOATS[x.dtype]

    def sort(spec: Chosen, **read: Tensor) -> Tensor:
        return launch(spec.workload(m, dtype), gate.device, read)[0]

    tiles = sort(ExpertTiles(experts, used), places=sort(ExpertPlaces(experts, used), ids=ids))

    def product(x: Tensor, w: PackedWeight, of: str, bias: Tensor | None, gate: Tensor | None = None) -> Tensor:
        n, k, name = w.shape[0] // experts, w.shape[1], epilogue(bias=bias, gate=gate)
        spec = ExpertProduct(w.format, n, k, experts, used, of, "silu" if gate is None else act, name)
        read = {"w": w.planes, "x": x, "tiles": tiles, "ids": ids, **given(bias=bias, gate=gate)}
        return launch(spec.workload(m, dtype), w.device, read)[0].reshape(m, used, n)

    gated = product(x, up, "token", up_bias, product(x, gate, "token", gate_bias))
    return expert_sum(product(gated, down, "pair", down_bias), probs, residual)


def expert_sum(x: Tensor, probs: Tensor, residual: Tensor | None = None) -> Tensor:
    """The sum over used of probs float32 [m, used] * x [m, used, n], the outputs of each token's experts, plus
    residual: [m, n]."""
    m, used, n = sizes("expert_sum", "x", x, "[m, used, n]")
    spec = ExpertSum(n, used, epilogue(add=residual))
    asked = spec.workload(bucket("expert_sum", x, m), FLOATS[x.dtype])
    read = {"x": x, "probs": probs, **given(residual=residual)}
    return launch(asked, str(x.device), read)[0]


def _used(op: str, ids: Tensor) -> int:
    return sizes(op, "ids", ids, "[m, used]", INT)[1]


def _rows(op: str, name: str, w: PackedWeight, experts: int) -> int:
    """n of stacked weights [experts * n, k]."""
    if experts < 1 or w.shape[0] % experts:
        raise ArgumentError(f"{op}: {name} of shape {w.shape} is not [experts * n, k] of {experts} experts")
    return w.shape[0] // experts


def _bias(op: str, name: str, bias: Tensor | None, w: PackedWeight, experts: int) -> None:
    if bias is not None:
        fitting(op, name, bias, (experts, w.shape[0] // experts), dtypes.float32, w.device)
