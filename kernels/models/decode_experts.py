"""A mixture of experts as launches: the router, its choice, and the experts of each token. No shared experts here.

Facts of llama.cpp's build_moe_ffn (src/llama-graph.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from db.records import decimal
from kernels.models.architectures import GATINGS
from kernels.models.decode_model import Model
from kernels.models.header import TensorInfo
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.launch import RESIDUAL, Launch, Read, Takes, linear, whole


def routed(model: Model, block: str) -> Iterator[Launch]:
    """Router, choice, and the chosen experts over an x that is normalised already."""
    hp, arch = model.hp, model.arch
    router = hp.matrix(f"{block}ffn_gate_inp.weight", k=model.dim)
    experts, used = hp.integer("expert_count", router.shape[0]), hp.integer("expert_used_count")
    hp.matrix(router.name, n=experts)
    bias = hp.tensor(f"{block}ffn_gate_inp.bias")
    yield linear(router, whole(w=router, bias=bias), "none" if bias is None else "bias", "normed", "logits")
    yield _topk(model, block, experts, used)
    yield from expert_linears(hp, block, arch.act, "none" if arch.post_norms else "add", model.many)


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


@dataclass(frozen=True)
class _Experts:
    """The weights of a block's experts, of which a token uses `used`: gate and up [experts, n, dim], or one tensor that
    has the rows of both, and down [experts, dim, n]."""

    hp: Hyperparameters
    used: int
    gate: TensorInfo
    up: TensorInfo
    down: TensorInfo

    @staticmethod
    def of(hp: Hyperparameters, block: str) -> _Experts:
        """Raises HeaderError for shapes that contradict each other."""
        used = hp.integer("expert_used_count")
        down = hp.stack(f"{block}ffn_down_exps.weight")
        experts, dim, n = down.shape
        if used > experts:
            raise hp.error(f"{hp.name('expert_used_count')} is {used}, {down.name} has {experts} experts")
        fused = hp.tensor(f"{block}ffn_gate_up_exps.weight")
        if fused is not None:
            gate = up = hp.stack(fused.name, (experts, 2 * n, dim))
        else:
            gate, up = (hp.stack(f"{block}ffn_{half}_exps.weight", (experts, n, dim)) for half in ("gate", "up"))
        return _Experts(hp, used, gate, up, down)

    @property
    def fused(self) -> bool:
        return self.gate is self.up

    @property
    def extra(self) -> dict[str, int | str]:
        return {"experts": self.down.shape[0], "used": self.used}

    def reads(self, weight: TensorInfo, operand: str, bias: str) -> tuple[Read, ...]:
        """A weight as `operand`, and what is added to its products as `bias` if it is there."""
        experts, added = self.down.shape[0], self.hp.tensor(weight.name.removesuffix("weight") + "bias")
        if added is not None and added.shape[0] != experts:
            raise self.hp.error(f"{added.name} has the shape {added.shape}, not one row for each of {experts} experts")
        found = {operand: weight} if added is None else {operand: weight, bias: added}
        return tuple(Read(operand, tensor, self.used, experts) for operand, tensor in found.items())


def expert_linears(hp: Hyperparameters, block: str, act: str, epilogue: str, many: bool) -> Iterator[Launch]:
    """The launches of the experts that a token is routed to, or `many` tokens. The routing weights and the sum over
    experts are part of the last one, which adds to the residual."""
    e = _Experts.of(hp, block)
    yield from (_sorted if many else _each)(e, act, epilogue)


def _each(e: _Experts, act: str, epilogue: str) -> Iterator[Launch]:
    """Each token with experts of its own."""
    _, dim, n = e.down.shape
    if e.fused:
        first = e.reads(e.gate, "gate+up", "gate_bias+up_bias")
    else:
        first = (*e.reads(e.gate, "gate", "gate_bias"), *e.reads(e.up, "up", "up_bias"))
    last = e.reads(e.down, "w", "down_bias")
    biased = [int(any("bias" in read.operand for read in reads)) for reads in (first, last)]
    yield Launch(
        "expert_linear", e.gate.format, n, dim, first, 2 * e.used * n * dim,
        {"x": "normed", "ids": "ids"}, ("gated",), "none",
        e.extra | {"form": "gate_up", "up": e.up.format, "act": act, "bias": biased[0]},
    )  # fmt: skip
    takes, leaves = added({"x": "gated", "ids": "ids", "probs": "probs"}, epilogue)
    yield Launch(
        "expert_linear", e.down.format, dim, n, last, e.used * n * dim, takes, leaves, epilogue,
        e.extra | {"form": "down", "bias": biased[1]},
    )  # fmt: skip


def _sorted(e: _Experts, act: str, epilogue: str) -> Iterator[Launch]:
    """All tokens of an expert together."""
    experts, dim, _ = e.down.shape
    operands = (("w+", "bias+"), ("+w", "+bias")) if e.fused else (("w", "bias"), ("w", "bias"))
    gate, up = (e.reads(weight, *names) for weight, names in zip((e.gate, e.up), operands, strict=True))
    down = e.reads(e.down, "w", "bias")
    yield Launch("expert_places", "F32", experts, experts, (), 0, {"ids": "ids"}, ("places",), "none", e.extra)
    yield Launch("expert_tiles", "F32", experts, experts, (), 0, {"places": "places"}, ("tiles",), "none", e.extra)
    yield _product(e, gate, "token", {"x": "normed"}, "gate")
    yield _product(e, up, "token", {"x": "normed", "gate": "gate"}, "gated", act)
    yield _product(e, down, "pair", {"x": "gated"}, "each")
    yield weighted_sum(dim, e.used, epilogue)


def _product(e: _Experts, reads: tuple[Read, ...], of: str, takes: Takes, leaves: str, act: str = "") -> Launch:
    """A weight of the experts times an x of the token, or of each of its experts."""
    _, dim, n = e.down.shape
    rows, columns = (n, dim) if of == "token" else (dim, n)
    epilogue = "_".join(["bias"] * (len(reads) > 1) + ["gate"] * ("gate" in takes)) or "none"
    extra: dict[str, int | str] = {**e.extra, "of": of} | ({"act": act} if act else {})
    return Launch(
        "expert_product", reads[0].tensor.format, rows, columns, reads, e.used * n * dim,
        {**takes, "tiles": "tiles", "ids": "ids"}, (leaves,), epilogue, extra,
    )  # fmt: skip


def weighted_sum(dim: int, used: int, epilogue: str) -> Launch:
    """What each of a token's experts made, times its routing weight."""
    takes, leaves = added({"x": "each", "probs": "probs"}, epilogue)
    return Launch("expert_sum", "F32", dim, dim, (), used * dim, takes, leaves, epilogue, {"used": used})


def added(takes: Takes, epilogue: str) -> tuple[Takes, tuple[str]]:
    """What a launch that ends a block takes and leaves."""
    return ({**takes, "residual": RESIDUAL}, (RESIDUAL,)) if epilogue == "add" else (takes, ("block",))
