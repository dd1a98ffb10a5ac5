"""The relatives of `linear` over Tensors: fused norms, gates, experts. Each is one launch but `mixture`, tuned where a
schedule is known; nothing is ever searched here.

Activations are float32 or float16, summed in float32; `m` tokens must be a bucket of M_BUCKETS (`packed.padded` pads).
Expert weights are stacked: a PackedWeight of shape (experts * n, k).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from tinygrad import Tensor, dtypes

from db.records import M_BUCKETS, Workload, decimal
from kernels.launch import launch
from kernels.packed import PackedWeight

_NAMES = {dtypes.float32: "float32", dtypes.float16: "float16"}


def _workload(
    op: str, x: Tensor, format: str, n: int, k: int, extra: Mapping[str, int | str], epilogue: str = "none"
) -> Workload:
    if x.dtype not in _NAMES:
        raise ValueError(f"{op} takes float32 or float16 activations, saw {x.dtype.name}: cast them first")
    if x.shape[0] not in M_BUCKETS or x.shape[-1] != k:
        raise ValueError(f"{op}: x of shape {x.shape} is not [m, ..., {k}] with m one of {M_BUCKETS}")
    m, name = int(x.shape[0]), _NAMES[x.dtype]
    return Workload(op, format, n, k, m, name, name, epilogue, tuple(sorted(extra.items())))


def _epilogue(bias: Tensor | None, residual: Tensor | None) -> tuple[str, dict[str, Tensor]]:
    terms = {"bias": bias, "add": residual}
    name = "_".join(key for key, term in terms.items() if term is not None) or "none"
    return name, {"bias" if key == "bias" else "residual": t for key, t in terms.items() if t is not None}


def linear_add(x: Tensor, w: PackedWeight, residual: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x [m, k] times w [n, k] transposed, plus bias [n] and residual [m, n]: [m, n]."""
    epilogue, terms = _epilogue(bias, residual)
    workload = _workload("linear", x, w.format, *w.shape, {}, epilogue)
    return launch(workload, w.target, w.device, {"w": w.planes, "x": x, **terms})[0]


def rmsnorm_linear(
    x: Tensor, norm: Tensor, weights: Sequence[PackedWeight], eps: float, bias: Tensor | None = None
) -> Tensor:
    """RMSNorm of x [m, k] (norm [k]), then every weight [n_i, k]: [m, sum of n_i], plus bias. Neighbours of one format
    must come as one weight."""
    first, n = weights[0], sum(w.shape[0] for w in weights)
    if any(len(list(group)) > 1 for _, group in groupby(w.format for w in weights)):
        raise ValueError(f"rmsnorm_linear: neighbours of one format among {[w.format for w in weights]}: stack them")
    epilogue, terms = _epilogue(bias, None)
    parts = "+".join(f"{w.format}.{w.shape[0]}" for w in weights)
    extra = {"parts": parts, "eps": decimal(eps)}
    workload = _workload("rmsnorm_linear", x, first.format, n, first.shape[1], extra, epilogue)
    planes = {f"w{i}": w.planes for i, w in enumerate(weights)}
    return launch(workload, first.target, first.device, {**planes, "x": x, "norm": norm, **terms})[0]


def gate_up(
    x: Tensor, gate: PackedWeight, up: PackedWeight, act: str = "silu", norm: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """act(gate x) * (up x) for x [m, k]: [m, n]; with `norm` [k], of x after RMSNorm."""
    extra: dict[str, int | str] = {"act": act, "up": up.format, "norm": "none" if norm is None else "rms"}
    extra |= {} if norm is None else {"eps": decimal(eps)}
    workload = _workload("gate_up", x, gate.format, *gate.shape, extra)
    read = {"gate": gate.planes, "up": up.planes, "x": x, **({} if norm is None else {"norm": norm})}
    return launch(workload, gate.target, gate.device, read)[0]


def expert_gate_up(
    x: Tensor, ids: Tensor, gate: PackedWeight, up: PackedWeight, experts: int, act: str = "silu"
) -> Tensor:
    """act(gate[id] x) * (up[id] x) for x [m, k] and each of ids int32 [m, used]: [m, used, n]."""
    used, (rows, k) = int(ids.shape[1]), gate.shape
    extra: dict[str, int | str] = {
        "experts": experts,
        "used": used,
        "form": "gate_up",
        "bias": 0,
        "act": act,
        "up": up.format,
    }
    workload = _workload("expert_linear", x, gate.format, rows // experts, k, extra)
    read = {"gate": gate.planes, "up": up.planes, "x": x, "ids": ids}
    return launch(workload, gate.target, gate.device, read)[0]


def expert_down(
    x: Tensor, ids: Tensor, probs: Tensor, w: PackedWeight, experts: int, residual: Tensor | None = None
) -> Tensor:
    """sum over used of probs [m, used] * (w[id] x [m, used, k]), plus residual: [m, n], in one launch."""
    used, (rows, k) = int(ids.shape[1]), w.shape
    epilogue, terms = _epilogue(None, residual)
    extra: dict[str, int | str] = {"experts": experts, "used": used, "form": "down", "bias": 0}
    workload = _workload("expert_linear", x, w.format, rows // experts, k, extra, epilogue)
    return launch(workload, w.target, w.device, {"w": w.planes, "x": x, "ids": ids, "probs": probs, **terms})[0]


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
) -> Tensor:
    """sum over used of probs [m, used] * down[id] (act(gate[id] x) * (up[id] x)) for x [m, k] and ids int32 [m, used],
    plus residual: [m, n]. For many tokens: those of an expert share its weights. Six launches."""
    (m, used), target, device = map(int, ids.shape), gate.target, gate.device
    sizes: dict[str, int | str] = {"experts": experts, "used": used}

    def sort(op: str, **read: Tensor) -> Tensor:
        return launch(Workload(op, "F32", experts, experts, m, extra=tuple(sizes.items())), target, device, read)[0]

    tiles = sort("expert_tiles", places=sort("expert_places", ids=ids))

    def product(x: Tensor, w: PackedWeight, of: str, more: Mapping[str, str], read: Mapping[str, Tensor]) -> Tensor:
        n, k = w.shape[0] // experts, w.shape[1]
        workload = _workload(
            "expert_product", x, w.format, n, k, {**sizes, **more, "of": of}, "gate" if read else "none"
        )
        given = {"w": w.planes, "x": x, "tiles": tiles, "ids": ids, **read}
        return launch(workload, target, device, given)[0].reshape(m, used, n)

    gated = product(x, up, "token", {"act": act}, {"gate": product(x, gate, "token", {}, {})})
    each, (epilogue, terms) = product(gated, down, "pair", {}, {}), _epilogue(None, residual)
    n = int(each.shape[-1])
    workload = _workload("expert_sum", each, "F32", n, n, {"used": used}, epilogue)
    return launch(workload, target, device, {"x": each, "probs": probs, **terms})[0]


def head_linear(x: Tensor, w: PackedWeight) -> Tensor:
    """w [heads * n, k] by heads, times x [m, heads, k]: [m, heads, n]."""
    heads = int(x.shape[1])
    workload = _workload("head_linear", x, w.format, w.shape[0] // heads, w.shape[1], {"heads": heads})
    return launch(workload, w.target, w.device, {"w": w.planes, "x": x})[0]
