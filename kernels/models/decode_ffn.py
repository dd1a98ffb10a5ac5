"""A block's feed-forward as launches: dense, a mixture of experts, shared experts. No attention here.

Facts of llama.cpp's build_ffn and build_moe_ffn (src/llama-graph.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from db.records import decimal
from kernels.models.architectures import GATINGS
from kernels.models.decode_model import Model
from kernels.models.header import TensorInfo
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.launch import RESIDUAL, Launch, Read, Takes, whole


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
    tensor, k = read.tensor, read.tensor.shape[1]
    whole_reads = (
        replace(read, tensor=replace(tensor, nbytes=tensor.nbytes * n // tensor.shape[0])),
        *whole(bias=bias),
    )
    epilogue = "_".join(["bias"] * (bias is not None) + ["gate"] * bool(gate)) or "none"
    extra: dict[str, int | str] = {"act": act} if act else {}
    return Launch(
        "linear", tensor.format, n, k, whole_reads, n * k, {"x": "normed", **gate}, (leaves,), epilogue, extra
    )


def routed(model: Model, block: str) -> Iterator[Launch]:
    """Router, choice, and the chosen experts over an x that is normalised already. The routing weights and the sum
    over experts are part of the last launch, which adds to the residual."""
    hp, arch = model.hp, model.arch
    router = hp.matrix(f"{block}ffn_gate_inp.weight", k=model.dim)
    experts, used = hp.integer("expert_count", router.shape[0]), hp.integer("expert_used_count")
    hp.matrix(router.name, n=experts)
    bias = hp.tensor(f"{block}ffn_gate_inp.bias")
    yield linear(router, whole(w=router, bias=bias), "none" if bias is None else "bias", "normed", "logits")
    yield _topk(model, block, experts, used)
    yield from expert_linears(hp, block, arch.act, "none" if arch.post_norms else "add")


def _topk(model: Model, block: str, experts: int, used: int) -> Launch:
    hp, arch = model.hp, model.arch
    number = hp.integer("expert_gating_func", 0, low=0)
    if number and number not in GATINGS:
        known = ", ".join(map(str, GATINGS))
        raise hp.error(f"{hp.name('expert_gating_func')} is {number}, known are {known}")
    groups = hp.integer("expert_group_count", 1, low=0)
    bias = hp.tensor(f"{block}exp_probs_b.bias")
    extra: dict[str, int | str] = {
        "experts": experts,
        "used": used,
        "gating": GATINGS.get(number, arch.gating),
        "bias": int(bias is not None),
        "norm": int(hp.flag("expert_weights_norm", arch.normalised)),
        "scale": decimal(hp.number("expert_weights_scale", 0.0) or 1.0),
    }
    if groups > 1:
        taken = hp.integer("expert_group_used_count")
        if experts % groups or taken > groups or used > experts // groups * taken:
            raise hp.error(f"{used} experts cannot come from {taken} of {groups} groups of {experts} experts")
        extra |= {"groups": groups, "used_groups": taken}
    takes = {"logits": "logits"}
    return Launch("topk", "F32", experts, experts, whole(bias=bias), experts, takes, ("ids", "probs"), "none", extra)


def expert_linears(hp: Hyperparameters, block: str, act: str, epilogue: str) -> Iterator[Launch]:
    """The two launches of the experts that a token is routed to."""
    used = hp.integer("expert_used_count")
    down = hp.stack(f"{block}ffn_down_exps.weight")
    experts, dim, n = down.shape
    if used > experts:
        raise hp.error(f"{hp.name('expert_used_count')} is {used}, {down.name} has {experts} experts")
    fused = hp.tensor(f"{block}ffn_gate_up_exps.weight")
    weights: dict[str, TensorInfo]
    if fused is not None:
        gate = up = hp.stack(fused.name, (experts, 2 * n, dim))
        weights = {"gate+up": gate}
        biases = {"gate_bias+up_bias": f"{block}ffn_gate_up_exps.bias"}
    else:
        gate, up = (hp.stack(f"{block}ffn_{half}_exps.weight", (experts, n, dim)) for half in ("gate", "up"))
        weights = {"gate": gate, "up": up}
        biases = {f"{half}_bias": f"{block}ffn_{half}_exps.bias" for half in ("gate", "up")}

    def reads(weights: dict[str, TensorInfo], biases: dict[str, str]) -> tuple[Read, ...]:
        found = {operand: t for operand, name in biases.items() if (t := hp.tensor(name)) is not None}
        for t in found.values():
            if t.shape[0] != experts:
                raise hp.error(f"{t.name} has the shape {t.shape}, not one row for each of {experts} experts")
        return tuple(Read(operand, t, used, experts) for operand, t in (weights | found).items())

    common: dict[str, int | str] = {"experts": experts, "used": used}
    first, last = reads(weights, biases), reads({"w": down}, {"down_bias": f"{block}ffn_down_exps.bias"})
    yield Launch(
        "expert_linear", gate.format, n, dim, first, 2 * used * n * dim,
        {"x": "normed", "ids": "ids"}, ("gated",), "none",
        common | {"form": "gate_up", "up": up.format, "act": act, "bias": int(len(first) > len(weights))},
    )  # fmt: skip
    chosen = {"x": "gated", "ids": "ids", "probs": "probs"}
    yield Launch(
        "expert_linear", down.format, dim, n, last, used * n * dim, *_added(chosen, epilogue), epilogue,
        common | {"form": "down", "bias": int(len(last) > 1)},
    )  # fmt: skip


def _added(takes: Takes, epilogue: str) -> tuple[Takes, tuple[str]]:
    """What a launch that ends a block takes and leaves."""
    return ({**takes, "residual": RESIDUAL}, (RESIDUAL,)) if epilogue == "add" else (takes, ("block",))


def shared(model: Model, block: str) -> Iterator[Launch]:
    """The expert that every token takes, added to what the routed ones made.

    With a gate of its own (qwen2moe), out = routed + sigmoid(gate . x) * shared(x), it is a mixture of one expert:
    `topk` of one by sigmoid gives its weight, and the down projection of experts applies it.
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
    else:
        extra: dict[str, int | str] = {"experts": 1, "used": 1, "form": "down", "bias": 0}
        takes, leaves = _added({"x": "gated", "ids": "ids", "probs": "probs"}, "add")
        sizes = last.format, last.n, last.k, last.reads, last.products
        yield Launch("expert_linear", *sizes, takes, leaves, "add", extra)


def linear(weight: TensorInfo, reads: tuple[Read, ...], epilogue: str, takes: str, leaves: str) -> Launch:
    """A weight [n, k] or a row [k] times an x."""
    n, k = weight.shape if len(weight.shape) == 2 else (1, weight.shape[-1])
    return Launch("linear", weight.format, n, k, reads, n * k, {"x": takes}, (leaves,), epilogue)
