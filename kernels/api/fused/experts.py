"""The experts of a mixture, chosen on the device. Their weights are stacked: PackedWeights of (experts * n, k)."""

from __future__ import annotations

from collections.abc import Mapping

from tinygrad import Tensor, dtypes

from kernels.api.arguments import INT, ArgumentError, fitting, given, packed, sizes
from kernels.api.fused.workload import bucket, epilogue, tokens, workload
from kernels.api.launch import launch
from kernels.api.packed import PackedWeight
from kernels.api.scalars import scalars


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
    """act(gate[id] x) * (up[id] x) for x [m, k] and each of ids int32 [m, used]: [m, used, n]. Biases, both or neither,
    are [experts, n] and added before the activation."""
    op = "expert_gate_up"
    packed(op, gate=gate, up=up)
    (used, n), k = (_used(op, ids), _rows(op, "gate", gate, experts)), gate.shape[1]
    if up.shape != gate.shape:
        raise ArgumentError(f"{op}: gate of shape {gate.shape} and up of shape {up.shape} are not the same size")
    if (gate_bias is None) != (up_bias is None):
        raise ArgumentError(f"{op}: gate_bias and up_bias come together: give both or neither")
    m, biased = tokens(op, x, "[m, k]", k), int(gate_bias is not None)
    extra = _chosen(experts, used) | {"form": "gate_up", "bias": biased, "act": act, "up": up.format}
    read = {"gate": gate.planes, "up": up.planes, "x": x, "ids": ids, **given(gate_bias=gate_bias, up_bias=up_bias)}
    return launch(workload("expert_linear", x, gate.format, n, k, m, extra), gate.device, read)[0]


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
    """sum over used of probs [m, used] * (w[id] x [m, used, k] + bias[id]), plus residual: [m, n], in one launch. bias
    is [experts, n]."""
    op = "expert_down"
    packed(op, w=w)
    (used, n), k = (_used(op, ids), _rows(op, "w", w, experts)), w.shape[1]
    _bias(op, "bias", bias, w, experts)
    m = tokens(op, x, "[m, used, k]", k)
    extra = _chosen(experts, used) | {"form": "down", "bias": int(bias is not None)}
    asked = workload("expert_linear", x, w.format, n, k, m, extra, epilogue(add=residual))
    read = {"w": w.planes, "x": x, "ids": ids, "probs": probs, **given(down_bias=bias, residual=residual)}
    return launch(asked, w.device, read)[0]


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
    """sum over used of probs [m, used] * down[id] (act(gate[id] x) * (up[id] x)) for x [m, k] and ids int32 [m, used],
    plus residual: [m, n]. For many tokens: those of an expert share its weights. Six launches. Biases are [experts, n],
    each of its product."""
    op = "mixture"
    packed(op, gate=gate, up=up, down=down)
    m, used = tokens(op, x, "[m, k]", gate.shape[1]), _used(op, ids)
    for name, w, bias in (("gate", gate, gate_bias), ("up", up, up_bias), ("down", down, down_bias)):
        _rows(op, name, w, experts)
        _bias(op, f"{name}_bias", bias, w, experts)
    sorted_by = _chosen(experts, used)

    def sort(op: str, **read: Tensor) -> Tensor:
        asked = workload(op, x, "F32", experts, experts, m, sorted_by)
        return launch(asked, gate.device, read)[0]

    tiles = sort("expert_tiles", places=sort("expert_places", ids=ids))

    def product(
        x: Tensor, w: PackedWeight, of: str, bias: Tensor | None, more: Mapping[str, str], gate: Tensor | None = None
    ) -> Tensor:
        n, k = w.shape[0] // experts, w.shape[1]
        name = epilogue(bias=bias, gate=gate)
        asked = workload("expert_product", x, w.format, n, k, m, {**sorted_by, **more, "of": of}, name)
        read = {"w": w.planes, "x": x, "tiles": tiles, "ids": ids, **given(bias=bias, gate=gate)}
        return launch(asked, w.device, read)[0].reshape(m, used, n)

    gated = product(x, up, "token", up_bias, {"act": act}, product(x, gate, "token", gate_bias, {}))
    return expert_sum(product(gated, down, "pair", down_bias, {}), probs, residual)


def expert_sum(x: Tensor, probs: Tensor, residual: Tensor | None = None) -> Tensor:
    """sum over used of probs float32 [m, used] * x [m, used, n], what each expert of a token made, plus residual:
    [m, n]."""
    m, used, n = sizes("expert_sum", "x", x, "[m, used, n]")
    asked = workload("expert_sum", x, "F32", n, n, bucket("expert_sum", x, m), {"used": used}, epilogue(add=residual))
    read = {"x": x, "probs": probs, **given(residual=residual)}
    return launch(asked, str(x.device), read)[0]


def _chosen(experts: int, used: int) -> dict[str, int | str]:
    return {"experts": experts, "used": used}


def _used(op: str, ids: Tensor) -> int:
    return sizes(op, "ids", ids, "[m, used]", INT)[1]


def _rows(op: str, name: str, w: PackedWeight, experts: int) -> int:
    """n of stacked weights."""
    if experts < 1 or w.shape[0] % experts:
        raise ArgumentError(f"{op}: {name} of shape {w.shape} is not [experts * n, k] of {experts} experts")
    return w.shape[0] // experts


def _bias(op: str, name: str, bias: Tensor | None, w: PackedWeight, experts: int) -> None:
    if bias is not None:
        fitting(op, name, bias, (experts, w.shape[0] // experts), dtypes.float32, w.device)
