"""A block's feed-forward as launches: dense, or shared experts beside those of `decode_experts`. No attention here.

Facts of llama.cpp's build_ffn and build_moe_ffn (src/llama-graph.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator

from db.records import decimal
from kernels.models.decode_experts import added, routed, weighted_sum
from kernels.models.decode_model import Model
from kernels.models.header import TensorInfo
from kernels.models.launch import RESIDUAL, Launch, Read, Takes, linear, whole


def feed_forward(model: Model, layer: int) -> Iterator[Launch]:
    """From the residual to the residual: norm, FFN or experts, sum, and the post-norm where there is one."""
    block = f"blk.{layer}."
    if model.hp.tensor(f"{block}ffn_gate_inp.weight") is None:
        yield from gate_up(model, block, "ffn", RESIDUAL, norm=True)
        yield model.output_linear(f"{block}ffn_down", "gated")
    else:
        yield model.norm(f"{block}{model.arch.ffn_norm}.weight", model.dim, RESIDUAL, "normed")
        yield from routed(model, block)
        yield from shared(model, block)
    yield from model.post_norm(block, 1)


def gate_up(
    model: Model, block: str, stem: str, takes: str, suffix: str = "", *, norm: bool = False
) -> Iterator[Launch]:
    """act(W_gate x) * (W_up x). A weight that holds both, gate first, is two weights: its halves."""
    hp, k = model.hp, model.dim
    names = [f"{block}{stem}_{half}{suffix}" for half in ("gate", "up")]
    up = hp.matrix(f"{names[1]}.weight", k=k)
    if hp.tensor(f"{names[0]}.weight") is not None:
        n = up.shape[0]
        gate = hp.matrix(f"{names[0]}.weight", n=n, k=k)
        weights = whole(gate=gate, up=up)
    else:
        n = hp.matrix(f"{block}{stem}_down{suffix}.weight").shape[1]
        gate = up = hp.matrix(up.name, n=2 * n)
        weights = (Read("gate+up", gate),)
    gate_bias, up_bias = (hp.tensor(f"{name}.bias") for name in names)
    vector, act = f"{block}{model.arch.ffn_norm}.weight", model.arch.act
    if model.many:
        if norm:
            yield model.norm(vector, k, takes, "normed")
        yield _half(Read("w+" if gate is up else "w", gate), n, gate_bias, {}, "gate")
        yield _half(Read("+w" if gate is up else "w", up), n, up_bias, {"gate": "gate"}, "gated", act)
        return
    extra: dict[str, int | str] = {"up": up.format, "act": act, "norm": "rms" if norm else "none"}
    if norm:
        extra["eps"] = decimal(model.eps)
    reads = (
        *whole(norm=hp.vector(vector, k) if norm else None),
        *weights,
        *whole(gate_bias=gate_bias, up_bias=up_bias),
    )
    epilogue = "none" if gate_bias is up_bias is None else "bias"
    yield Launch("gate_up", gate.format, n, k, reads, 2 * n * k, {"x": takes}, ("gated",), epilogue, extra)


def _half(read: Read, n: int, bias: TensorInfo | None, gate: Takes, leaves: str, act: str = "") -> Launch:
    """The gate, or what is multiplied by its activation: n rows of a weight, which may have those of both."""
    format, k, reads = read.tensor.format, read.tensor.shape[1], (read, *whole(bias=bias))
    epilogue = "_".join(["bias"] * (bias is not None) + ["gate"] * bool(gate)) or "none"
    extra: dict[str, int | str] = {"act": act} if act else {}
    return Launch("linear", format, n, k, reads, n * k, {"x": "normed", **gate}, (leaves,), epilogue, extra)


def shared(model: Model, block: str) -> Iterator[Launch]:
    """The expert that every token takes, added to what the routed ones made.

    With a gate of its own (qwen2moe), out = routed + sigmoid(gate . x) * shared(x), it is a mixture of one expert:
    `topk` of one by sigmoid gives its weight, and the down projection of experts, or their sum, applies it.
    """
    hp = model.hp
    down = hp.tensor(f"{block}ffn_down_shexp.weight")
    if down is None:
        return
    gate = hp.tensor(f"{block}ffn_gate_inp_shexp.weight")
    if gate is not None:
        yield linear(gate, whole(w=gate), "none", "normed", "logits")
        weight: dict[str, int | str] = {"gating": "sigmoid", "bias": 0, "norm": 0, "scale": "1"}
        one: dict[str, int | str] = {"experts": 1, "used": 1, **weight}
        yield Launch("topk", "F32", 1, 1, (), 1, {"logits": "logits"}, ("ids", "probs"), "none", one)
    yield from gate_up(model, block, "ffn", "normed", "_shexp")
    last = model.output_linear(f"{block}ffn_down_shexp", "gated", always_add=True)
    if gate is None:
        yield last
    elif model.many:
        yield linear(down, whole(w=down), "none", "gated", "each")
        yield weighted_sum(model.dim, 1, "add")
    else:
        extra: dict[str, int | str] = {"experts": 1, "used": 1, "form": "down", "bias": 0}
        takes, leaves = added({"x": "gated", "ids": "ids", "probs": "probs"}, "add")
        sizes = last.format, last.n, last.k, last.reads, last.products
        yield Launch("expert_linear", *sizes, takes, leaves, "add", extra)
