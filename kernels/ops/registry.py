"""The table of ops, and what all other packages ask of an op. What only one op knows is in its own module."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from tinygrad import UOp

from db.records import Schedule, Workload
from kernels import backends
from kernels.backends import Backend
from kernels.formats import get_format
from kernels.ops.argmax import argmax
from kernels.ops.argmax import host as host_argmax
from kernels.ops.attention import flash, flash_combine, mla
from kernels.ops.digest import source_digest
from kernels.ops.embed import embed
from kernels.ops.experts import expert_linear, expert_product, expert_sum, expert_tiles
from kernels.ops.host_attention import cache_store as host_cache_store
from kernels.ops.host_attention import combine as host_combine
from kernels.ops.host_attention import op as host_attention
from kernels.ops.linear import gate_up, head_linear, linear, rmsnorm_linear
from kernels.ops.norm import rmsnorm
from kernels.ops.op import KernelError, Op, Operand, Variable, Variant
from kernels.ops.q8 import embed as q8_embed
from kernels.ops.q8 import expert_linear as q8_expert_linear
from kernels.ops.q8 import gate_up as q8_gate_up
from kernels.ops.q8 import head_linear as q8_head_linear
from kernels.ops.q8 import linear as q8_linear
from kernels.ops.q8 import quantise
from kernels.ops.q8.spec import Q8
from kernels.ops.rope import mla_cache_store, rope_cache_store
from kernels.ops.topk import topk
from kernels.tinygrad.renderers import Renderer, writes_c
from kernels.tinygrad.uops import KernelInfo

__all__ = ["OPS", "Q8_OPS", "KernelError", "Operand", "Variant"]

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        linear.OP,
        rmsnorm_linear.OP,
        gate_up.OP,
        expert_linear.OP,
        expert_tiles.expert_places,
        expert_tiles.expert_tiles,
        expert_product.OP,
        expert_sum.OP,
        head_linear.OP,
        topk.OP,
        rope_cache_store.OP,
        flash.flash_decode,
        flash_combine.OP,
        flash.flash_prefill,
        host_cache_store.OP,
        host_attention.host_decode,
        host_attention.host_prefill,
        host_combine.OP,
        mla_cache_store.OP,
        mla.mla_decode,
        mla.mla_prefill,
        rmsnorm.rmsnorm,
        rmsnorm.rmsnorm_add,
        embed.OP,
        argmax.OP,
        host_argmax.peaks,
        host_argmax.argmax,
    )
}
Q8_OPS: dict[str, Op] = {
    op.name: op
    for op in (
        quantise.OP,
        q8_linear.OP,
        q8_gate_up.OP,
        q8_expert_linear.OP,
        q8_head_linear.OP,
        q8_embed.OP,
    )
}
"""The ops that make or read quantised activations, most of which have the name of an op over floats."""


def check_op(name: str) -> None:
    """Raises KernelError for an op without kernels."""
    if name not in OPS and name not in Q8_OPS:
        raise KernelError(f"no kernels for the op {name!r}; there are {', '.join({**OPS, **Q8_OPS})}")


def get_op(w: Workload) -> Op:
    """The op of a workload. Raises KernelError for one without kernels."""
    check_op(w.op)
    over_int8 = Q8 in (w.x_dtype, w.out_dtype)
    try:
        return (Q8_OPS if over_int8 else OPS)[w.op]
    except KeyError:
        raise KernelError(f"{w.op} has no kernels for {w.x_dtype} -> {w.out_dtype} activations") from None


def backend(ren: Renderer) -> str:
    """The backend that a renderer writes for, as `variants` takes it: "CUDA", or "CUDA:PTX" where it does not write
    C."""
    name = str(ren.target.device)
    if writes_c(ren):
        return name
    return f"{name}:{type(ren).__name__.removesuffix('Renderer').upper()}"


def variants(w: Workload, device: str | None = None) -> dict[str, Variant]:
    """The variants that have parameters for the shape of a workload, on one `backend` or on any.

    Raises KernelError for an op, a dtype or an epilogue without kernels, FormatError for an unknown format, or for a k
    that is not whole blocks.
    """
    if device is None:
        return {name: v for name, v in get_op(w).variants(w).items() if v.params(w)}
    return dict(_fitting(w, backends.find(device)))


@functools.lru_cache(maxsize=1024)  # looking up, checking and building a kernel ask for the same variants
def _fitting(w: Workload, row: Backend) -> Mapping[str, Variant]:
    found = {name: variant.on(w, row) for name, variant in get_op(w).variants(w).items()}
    return {name: variant for name, variant in found.items() if variant.params(w)}


def operands(w: Workload) -> tuple[Operand, ...]:
    """The kernel's arguments in slot order."""
    return get_op(w).operands(w)


def variables(w: Workload) -> tuple[Variable, ...]:
    """The tinygrad Variables that the kernel takes."""
    return get_op(w).variables(w)


def tuned_values(w: Workload) -> dict[str, int]:
    """The value of each Variable while the kernel is tuned."""
    return {v.name: v.tuned for v in variables(w)}


def body(w: Workload, schedule: Schedule, args: Sequence[UOp], device: str) -> UOp:
    """The kernel over `args` (the UOps of `operands`) as a SINK. No opt has been applied to it."""
    found = variants(w, device)
    if schedule.variant not in found:
        raise KernelError(f"{w.op} {w.format} on {device} has no variant {schedule.variant!r}; has {', '.join(found)}")
    variant, params = found[schedule.variant], dict(schedule.params)
    if params not in variant.params(w):
        raise KernelError(f"{schedule.variant} of {w.format} ({w.n}, {w.k}) m={w.m} cannot be built with {params}")
    name = "_".join([w.op, w.format.lower(), f"{w.n}x{w.k}", f"m{w.m}", schedule.variant])
    by_name = {o.name: arg for o, arg in zip(operands(w), args, strict=True)}
    kernel = variant.build(w, params, by_name, device)
    return kernel.sink(arg=KernelInfo(name=name, opts_to_apply=None if schedule.opts is None else ()))


def kernel_digest(w: Workload) -> str:
    """The digest of all that decides what the kernels of a workload compute: our source and the version of tinygrad.

    A stored schedule is served only while the source is the one that it was validated with. Raises KernelError or
    FormatError.
    """
    op = get_op(w)
    return source_digest(op.module, frozenset(get_format(f).layout for f in op.formats(w)))


def nbytes_moved(w: Workload) -> int:
    """Bytes that one launch must move at least."""
    op = get_op(w)
    return sum(o.nbytes for o in op.operands(w)) if op.nbytes is None else op.nbytes(w)
