"""Small workloads of every op and every format, for checking schedules without a model. Data only."""

from __future__ import annotations

from collections.abc import Iterator

from db.records import Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.argmax.host_spec import HostArgMax, HostPeaks
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.attention.spec import FlashCombine, FlashPrefill, MlaPrefill
from kernels.ops.embed.spec import Embed
from kernels.ops.experts.spec import ExpertLinear, ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles
from kernels.ops.host_attention.spec import HostCacheStore, HostCombine, HostPrefill
from kernels.ops.linear.spec import ACTS, GateUp, HeadLinear, Linear, RmsNormLinear
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore
from kernels.ops.topk.spec import TopK

N, HEADS, EXPERTS, USED = 56, 4, 4, 2
TOKENS = (1, 4, 32)


def catalogue() -> tuple[Workload, ...]:
    """Every op in every format that it supports."""
    found = [w for number, format in enumerate(FORMATS) for w in _of_format(format, number)]
    return (*found, *_plain(), *_attention())


def _of_format(format: str, number: int) -> Iterator[Workload]:
    """The ops over weights. Activation functions, epilogues and other options alternate between formats."""
    k = max(256, 2 * get_format(format).block)
    act, other = ACTS[number % 2], list(FORMATS)[number - 1]
    other = other if k % get_format(other).block == 0 else format
    epilogue = ("none", "bias", "add", "bias_add")[number % 4]
    for m in TOKENS:
        yield Linear(format, N, k, epilogue).workload(m)
    gated = ("gate", "bias_gate")[number % 2]
    yield Linear(format, N, k, gated, act).workload(32)
    yield RmsNormLinear(((format, N),), k, k, 1e-5, ("none", "bias")[number % 2]).workload()
    if other != format:
        yield RmsNormLinear(((format, N), (other, 16)), k, k, 1e-5).workload()
    yield GateUp(format, N, k, other, act, 1e-5).workload()
    yield GateUp(format, N, k, format, act).workload(4)
    biased = number % 2 == 1
    yield ExpertLinear(format, N, k, EXPERTS, USED, "gate_up", other, ACTS[number % 3], biased).workload()
    added = ("none", "add")[number % 2]
    yield ExpertLinear(format, N, k, EXPERTS, USED, "down", bias=biased, epilogue=added).workload()
    yield ExpertLinear(format, N, k, experts=1, used=1, form="down", epilogue="add").workload()
    yield ExpertProduct(format, N, k, EXPERTS, USED, "token", act, gated).workload(32)
    yield ExpertProduct(format, N, k, EXPERTS, USED, "pair", epilogue=("bias", "none")[number % 2]).workload(32)
    for m in (1, 32):
        yield HeadLinear(format, N, k, HEADS, step=k + 32, row=HEADS * (k + 32) + 8).workload(m)
    yield Embed(format, 50, k, (1.0, 0.5)[number % 2]).workload(4)


def _plain() -> Iterator[Workload]:
    """The ops that read activations only."""
    for m in (1, 4):
        yield RmsNorm(192, 1e-6).workload(m)
        yield RmsNorm(192, 1e-6, heads=3).workload(m)
        yield RmsNormAdd(192, 1e-5).workload(m)
        yield from (spec(1000).workload(m) for spec in (ArgMax, HostPeaks, HostArgMax))
    for experts, used in ((EXPERTS, USED), (64, 6)):
        yield ExpertPlaces(experts, used).workload(32)
        yield ExpertTiles(experts, used).workload(32)
        yield ExpertSum(192, used, "none" if used == USED else "add").workload(32)
    for router in (
        TopK(8, 2, "softmax"),
        TopK(60, 4, "softmax_weight"),
        TopK(64, 6, "softmax", norm=True),
        TopK(128, 8, "sigmoid", bias=True, norm=True, scale=2.5),
        TopK(256, 8, "sigmoid", bias=True, norm=True, groups=8, used_groups=4),
        TopK(1, 1, "sigmoid"),
    ):
        yield router.workload()


def _attention() -> Iterator[Workload]:
    """Attention, and the ops before and after it."""
    layers: tuple[tuple[int, int, int, int, int, int, bool, float | None], ...] = (
        # heads, kv_heads, head_dim, ctx, splits, window, sinks, softcap
        (4, 2, 64, 100, 1, 0, False, None),
        (8, 2, 128, 200, 1, 64, False, None),
        (4, 4, 80, 70, 1, 0, False, 20.0),
        (2, 1, 256, 33, 2, 0, False, None),
        (6, 2, 72, 90, 4, 0, True, None),
        (4, 2, 32, 20, 1, 0, False, None),
        (4, 2, 8, 300, 1, 0, False, None),
    )
    for heads, kv_heads, dim, ctx, splits, window, sinks, softcap in layers:
        many = FlashPrefill(heads, kv_heads, dim, dim, ctx, ctx + 4, window, sinks, softcap, scale=0.125)
        for spec in (many, HostPrefill(**vars(many))):
            yield spec.one_token(splits).workload()
            yield spec.workload(16)
    for heads, rank, rope, ctx, splits in ((4, 32, 16, 31, 1), (2, 64, 16, 200, 3), (8, 512, 64, 65, 2)):
        latent = MlaPrefill(heads, rank, rope, ctx, ctx + 3, scale=0.11)
        yield latent.one_token(splits).workload()
        yield latent.workload(16)
    for heads, dim, splits in ((4, 64, 4), (3, 24, 7), (16, 128, 32)):
        yield from (spec(heads, dim, splits).workload() for spec in (FlashCombine, HostCombine))
    for mode, eps, m in (("neox", None, 1), ("interleaved", None, 4), ("neox", 1e-6, 1)):
        for store in (RopeCacheStore, HostCacheStore):
            yield store(4, 2, 64, 64, max_ctx=9, rope_dim=64, mode=mode, eps=eps).workload(m)
    yield MlaCacheStore(
        heads=3, kv_lora=40, qk_nope=24, rope_dim=16, max_ctx=9, eps=1e-6, q_row=3 * (24 + 16), kv_row=40 + 16
    ).workload()
