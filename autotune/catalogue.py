"""Small workloads of every op and every format, to check schedules on where no model is at hand. Data only."""

from __future__ import annotations

from collections.abc import Iterator

from db.records import Workload
from kernels.formats import FORMATS, get_format

N, HEADS, EXPERTS, USED = 56, 4, 4, 2
TOKENS = (1, 4, 32)
ACTS = ("silu", "gelu", "swiglu_oai")

Extra = dict[str, int | str]


def _w(op: str, format: str, n: int, k: int, extra: Extra, m: int = 1, epilogue: str = "none") -> Workload:
    return Workload(op, format, n, k, m, epilogue=epilogue, extra=tuple(sorted(extra.items())))


def catalogue() -> tuple[Workload, ...]:
    """Every op in every format that it takes."""
    found = [w for number, format in enumerate(FORMATS) for w in _of_format(format, number)]
    return (*found, *_plain(), *_attention())


def _of_format(format: str, number: int) -> Iterator[Workload]:
    """The ops over weights; act, epilogue and the like by turns."""
    k = max(256, 2 * get_format(format).block)
    act, other = ACTS[number % 2], list(FORMATS)[number - 1]
    other = other if k % get_format(other).block == 0 else format
    epilogue = ("none", "bias", "add", "bias_add")[number % 4]
    for m in TOKENS:
        yield _w("linear", format, N, k, {}, m, epilogue)
    yield _w("linear", format, N, k, {"act": act}, 32, ("gate", "bias_gate")[number % 2])
    norm: Extra = {"eps": "1e-05"}
    yield _w("rmsnorm_linear", format, N, k, norm | {"parts": f"{format}.{N}"}, 1, ("none", "bias")[number % 2])
    if other != format:
        yield _w("rmsnorm_linear", format, N + 16, k, norm | {"parts": f"{format}.{N}+{other}.16"})
    yield _w("gate_up", format, N, k, norm | {"up": other, "act": act, "norm": "rms"})
    yield _w("gate_up", format, N, k, {"up": format, "act": act, "norm": "none"}, 4)
    experts: Extra = {"experts": EXPERTS, "used": USED, "bias": number % 2}
    yield _w("expert_linear", format, N, k, experts | {"form": "gate_up", "up": other, "act": ACTS[number % 3]})
    yield _w("expert_linear", format, N, k, experts | {"form": "down"}, 1, ("none", "add")[number % 2])
    one: Extra = {"experts": 1, "used": 1, "bias": 0, "form": "down"}
    yield _w("expert_linear", format, N, k, one, 1, "add")
    sizes: Extra = {"experts": EXPERTS, "used": USED}
    yield _w("expert_product", format, N, k, sizes | {"of": "token", "act": act}, 32, ("gate", "bias_gate")[number % 2])
    yield _w("expert_product", format, N, k, sizes | {"of": "pair"}, 32, ("bias", "none")[number % 2])
    for m in (1, 32):
        yield _w("head_linear", format, N, k, {"heads": HEADS, "step": k + 32, "row": HEADS * (k + 32) + 8}, m)
    yield _w("embed", format, 50, k, {"scale": ("1", "0.5")[number % 2]}, 4)


def _plain() -> Iterator[Workload]:
    """The ops over activations alone."""
    for m in (1, 4):
        yield _w("rmsnorm", "F32", 192, 192, {"eps": "1e-06"}, m)
        yield _w("rmsnorm", "F32", 192, 192, {"eps": "1e-06", "heads": 3}, m)
        yield _w("rmsnorm_add", "F32", 192, 192, {"eps": "1e-05"}, m)
        yield _w("argmax", "F32", 1000, 1000, {}, m)
    for experts, used in ((EXPERTS, USED), (64, 6)):
        for op in ("expert_places", "expert_tiles"):
            yield _w(op, "F32", experts, experts, {"experts": experts, "used": used}, 32)
        yield _w("expert_sum", "F32", 192, 192, {"used": used}, 32, "none" if used == USED else "add")
    routers: tuple[tuple[int, int, str, Extra], ...] = (
        (8, 2, "softmax", {}),
        (60, 4, "softmax_weight", {}),
        (64, 6, "softmax", {"norm": 1}),
        (128, 8, "sigmoid", {"bias": 1, "norm": 1, "scale": "2.5"}),
        (256, 8, "sigmoid", {"bias": 1, "norm": 1, "groups": 8, "used_groups": 4}),
        (1, 1, "sigmoid", {}),
    )
    for experts, used, gating, more in routers:
        extra: Extra = {"bias": 0, "norm": 0, "scale": "1", "experts": experts, "used": used, "gating": gating}
        yield _w("topk", "F32", experts, experts, extra | more)


def _attention() -> Iterator[Workload]:
    """Attention, what comes before it and what comes after."""
    layers: tuple[tuple[int, int, int, int, Extra], ...] = (
        (4, 2, 64, 100, {}),
        (8, 2, 128, 200, {"window": 64}),
        (4, 4, 80, 70, {"softcap": "20"}),
        (2, 1, 256, 33, {"splits": 2}),
        (6, 2, 72, 90, {"sinks": 1, "splits": 4}),
        (4, 2, 32, 20, {}),
        (4, 2, 8, 300, {}),
    )
    for heads, kv_heads, dim, ctx, more in layers:
        extra: Extra = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "v_head_dim": dim, "ctx": ctx}
        extra |= {"max_ctx": ctx + 4, "splits": 1, "scale": "0.125", "window": 0, "sinks": 0, "softcap": "none"}
        yield _w("flash_decode", "F16", heads * dim, dim, extra | more)
        one = {name: value for name, value in (extra | more).items() if name != "splits"}
        yield _w("flash_prefill", "F16", heads * dim, dim, one, 16)
    for heads, rank, rope, ctx, splits in ((4, 32, 16, 31, 1), (2, 64, 16, 200, 3), (8, 512, 64, 65, 2)):
        extra = {"heads": heads, "kv_lora": rank, "rope_dim": rope, "ctx": ctx, "max_ctx": ctx + 3, "scale": "0.11"}
        yield _w("mla_decode", "F16", heads * rank, rank + rope, extra | {"splits": splits})
        yield _w("mla_prefill", "F16", heads * rank, rank + rope, extra, 16)
    for heads, dim, splits in ((4, 64, 4), (3, 24, 7), (16, 128, 32)):
        yield _w("flash_combine", "F32", heads * dim, splits, {"heads": heads, "v_head_dim": dim, "splits": splits})
    for mode, norm, m in (("neox", 0, 1), ("interleaved", 0, 4), ("neox", 1, 1)):
        extra = {"heads": 4, "kv_heads": 2, "head_dim": 64, "max_ctx": 9, "rope_dim": 64, "mode": mode, "qk_norm": norm}
        yield _w("rope_cache_store", "F16", 512, 512, extra | ({"eps": "1e-06"} if norm else {}), m)
    rank, rope, heads = 40, 16, 3
    extra = {"heads": heads, "kv_lora": rank, "qk_nope": 24, "rope_dim": rope, "max_ctx": 9, "eps": "1e-06"}
    n = (heads + 1) * rope + rank
    yield _w("mla_cache_store", "F16", n, n, extra)
