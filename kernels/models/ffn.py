"""A block's feed-forward network: dense, or a mixture of experts, with or without shared experts.

Facts of llama.cpp's build_ffn and build_moe_ffn (src/llama-graph.cpp).
"""

from __future__ import annotations

from kernels.models.architectures import GATINGS
from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.model import Model
from kernels.models.plan import Value
from kernels.ops.topk.spec import TopK


def feed_forward(model: Model, builder: Builder, layer: int, x: Value) -> Value:
    """x: the residual [m, dim] -> the residual [m, dim]"""
    block = f"blk.{layer}."
    name = model.arch.ffn_norm
    norm = model.hp.vector(f"{block}{name}.weight", model.dim) if name else None
    if model.hp.tensor(f"{block}ffn_gate_inp.weight") is None:
        gated = builder.gate_up(x, gate_up(model, block, "ffn"), "gated", norm)  # [m, n]
        return model.add_output(builder, block, x, gated, "ffn_down", "ffn")
    normed = builder.rmsnorm(x, norm, "ffn_normed") if norm else x  # [m, dim]
    if not model.arch.post_norms:
        return _mixture(model, builder, block, normed, "ffn_residual", add=x)
    out = _mixture(model, builder, block, normed, "ffn_out", add=None)
    return model.post_norm(builder, block, x, out, "ffn")


def gate_up(model: Model, block: str, stem: str, suffix: str = "") -> Gates:
    """The gate and up weights of a dense FFN, or of the shared experts (suffix "_shexp"). One tensor may hold both."""
    hp, k = model.hp, model.dim
    names = [f"{block}{stem}_{half}{suffix}" for half in ("gate", "up")]
    down = hp.matrix(f"{block}{stem}_down{suffix}.weight", n=model.dim)
    n = down.shape[1]
    if hp.tensor(f"{names[0]}.weight") is not None:
        gate, up = (model.projection(name, n, k) for name in names)
    else:
        gate = up = model.projection(names[1], 2 * n, k)
        if up.bias is not None:
            raise hp.error(f"{up.bias.name}: no kernel adds a bias to a fused gate and up weight; use llama.cpp")
    return Gates(gate, up, n, model.arch.act)


def _mixture(model: Model, builder: Builder, block: str, normed: Value, name: str, add: Value | None) -> Value:
    """The output of each token's routed experts, plus the shared experts and `add`: normed [m, dim] -> [m, dim]"""
    router = model.projection(f"{block}ffn_gate_inp", k=model.dim)
    routing, bias = routing_of(model, block, router.n)
    logits = builder.linear(normed, router, "router_logits")  # [m, experts]
    ids, probs = builder.topk(logits, routing, bias)  # [m, used] each
    experts = experts_of(model.hp, block, model.arch.act, model.dim)
    if experts.count != routing.experts:
        raise model.hp.error(f"{experts.down.weight.name} has {experts.count} experts, the router {routing.experts}")
    if model.hp.tensor(f"{block}ffn_down_shexp.weight") is None:
        return builder.experts(normed, ids, probs, experts, name, add)
    return _shared(model, builder, block, normed, builder.experts(normed, ids, probs, experts, "routed", add), name)


def routing_of(model: Model, block: str, rows: int) -> tuple[TopK, TensorInfo | None]:
    """How a router with this number of rows selects experts, and the bias of the selection. Raises HeaderError for keys
    that are invalid or unknown."""
    hp, arch = model.hp, model.arch
    experts, used = hp.integer("expert_count", rows), hp.integer("expert_used_count", layer=0)
    hp.matrix(f"{block}ffn_gate_inp.weight", n=experts)
    number = hp.integer("expert_gating_func", 0, low=0)
    if number and number not in GATINGS:
        known = ", ".join(map(str, GATINGS))
        raise hp.error(f"{hp.name('expert_gating_func')} is {number}, expected one of {known}")
    groups = hp.integer("expert_group_count", 1, low=0)
    taken = hp.integer("expert_group_used_count") if groups > 1 else 1
    if groups > 1 and (experts % groups or taken > groups or used > experts // groups * taken):
        raise hp.error(f"{used} experts cannot come from {taken} of {groups} groups of {experts} experts")
    gating, norm = GATINGS.get(number, arch.gating), hp.flag("expert_weights_norm", arch.normalised)
    scale = hp.number("expert_weights_scale", 0.0) or 1.0
    bias = hp.optional_vector(f"{block}exp_probs_b.bias", experts)
    return TopK(experts, used, gating, bias is not None, norm, scale, max(groups, 1), taken), bias


def experts_of(hp: Hyperparameters, block: str, act: str, dim: int | None = None) -> Experts:
    """The weights of a block's experts. Raises HeaderError if their shapes contradict each other."""
    used = hp.integer("expert_used_count", layer=0)
    down = hp.stack(f"{block}ffn_down_exps.weight", (None, dim, None))
    experts, dim, n = down.shape
    if used > experts:
        raise hp.error(f"{hp.name('expert_used_count')} is {used}, {down.name} has {experts} experts")

    def stacked(name: str, rows: int, columns: int) -> Projection:
        weight = hp.stack(f"{block}{name}.weight", (experts, rows, columns))
        bias = hp.tensor(f"{block}{name}.bias")
        return Projection(weight, None if bias is None else hp.matrix(bias.name, n=experts, k=rows))

    if hp.tensor(f"{block}ffn_gate_up_exps.weight") is not None:
        gate = up = stacked("ffn_gate_up_exps", 2 * n, dim)
    else:
        gate, up = stacked("ffn_gate_exps", n, dim), stacked("ffn_up_exps", n, dim)
    if (gate.bias is None) != (up.bias is None):
        raise hp.error(f"only one of {gate.weight.name} and {up.weight.name} has a bias, expected both or neither")
    return Experts(used, gate, up, stacked("ffn_down_exps", dim, n), act)


def _shared(model: Model, builder: Builder, block: str, normed: Value, add: Value, name: str) -> Value:
    """The shared experts, which process every token: normed [m, dim] -> their output plus `add`: [m, dim]

    In qwen2moe the shared experts have a gate: add + sigmoid(gate . x) * shared(x). That is a mixture of one expert,
    whose weight is the `topk` of one by sigmoid.
    """
    hp = model.hp
    gate = hp.tensor(f"{block}ffn_gate_inp_shexp.weight")
    weights, down = gate_up(model, block, "ffn", "_shexp"), model.projection(f"{block}ffn_down_shexp", n=model.dim)
    if gate is None:
        return builder.linear(builder.gate_up(normed, weights, "shared_gated"), down, name, add=add)
    logits = builder.linear(normed, Projection(hp.vector(gate.name, model.dim)), "shared_logits")  # [m, 1]
    ids, probs = builder.topk(logits, TopK(1, 1, "sigmoid"), name="shared_")
    gated = builder.gate_up(normed, weights, "shared_gated")
    if down.bias is not None:
        raise hp.error(f"{down.bias.name}: no kernel adds a bias to gated shared experts; use llama.cpp")
    return builder.weighted_linear(gated, ids, probs, down.weight, name, add)
