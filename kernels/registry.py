"""Which kernels there are: op -> variants, their parameters, and the digest of the source that builds them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tinygrad import UOp, dtypes
from tinygrad.dtype import DType
from tinygrad.renderer import Renderer
from tinygrad.renderer.cstyle import CStyleLanguage
from tinygrad.uop.ops import KernelInfo

from db.records import Schedule, Workload
from kernels.formats import get_format
from kernels.ops import linear, warp
from kernels.ops.linear import DTYPES, Params


class KernelError(ValueError):
    """The workload or the schedule names something that these kernels do not have."""


@dataclass(frozen=True)
class Variant:
    """`build(workload, params, out, planes, x, device)` -> the kernel's body; `params(workload)`: those it can be built
    with, the default first. `devices`: where it can run, None for everywhere."""

    build: Callable[..., UOp]
    params: Callable[[Workload], tuple[Params, ...]]
    devices: frozenset[str] | None = None


@dataclass(frozen=True)
class Operand:
    """A kernel argument, in slot order: out [m, n], the weight's planes [n, blocks, items], x [m, k]."""

    name: str
    shape: tuple[int, ...]
    dtype: DType


_BLOCKED = {
    "dequant": Variant(linear.dequant, linear.block_params),
    "factored": Variant(linear.factored, linear.block_params),
    "warp": Variant(warp.warp, warp.warp_params, frozenset(warp.SHUFFLES)),
}
_PLAIN = {"dequant": Variant(linear.plain, linear.plain_params)}
OPS = ("linear",)


def backend(ren: Renderer) -> str:
    """The device that a renderer writes for, as `variants` takes it: "CUDA", or "CUDA:PTX" where it writes no C."""
    name = str(ren.target.device)
    if isinstance(ren, CStyleLanguage):
        return name
    return f"{name}:{type(ren).__name__.removesuffix('Renderer').upper()}"


def _check_op(op: str) -> None:
    if op not in OPS:
        raise KernelError(f"no kernels for the op {op!r}; there are {', '.join(OPS)}")


def variants(w: Workload, device: str | None = None) -> dict[str, Variant]:
    """The variants of a workload that have parameters for its shape, for one `backend` or for all.

    Raises KernelError for an op, dtype or epilogue without kernels, FormatError for a format or a k that does not fit.
    """
    _check_op(w.op)
    if w.epilogue != "none" or not {w.x_dtype, w.out_dtype} <= DTYPES.keys():
        raise KernelError(f"no kernel takes {w.x_dtype} -> {w.out_dtype} with the epilogue {w.epilogue!r}")
    fmt = get_format(w.format)
    fmt.blocks(w.k)
    found = _PLAIN if fmt.layout == "plain" else _BLOCKED
    return {
        name: v
        for name, v in found.items()
        if v.params(w) and (device is None or v.devices is None or device in v.devices)
    }


def operands(w: Workload) -> tuple[Operand, ...]:
    """The kernel's arguments in slot order."""
    fmt = get_format(w.format)
    blocks = fmt.blocks(w.k)
    planes = [Operand(p.name, (w.n, blocks, p.items), getattr(dtypes, p.dtype)) for p in fmt.planes]
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype]),
        *planes,
        Operand("x", (w.m, w.k), DTYPES[w.x_dtype]),
    )


def body(w: Workload, schedule: Schedule, args: Sequence[UOp], device: str) -> UOp:
    """The kernel over `args` (UOps of `operands`) as a SINK that no opt has been applied to."""
    found = variants(w, device)
    if schedule.variant not in found:
        raise KernelError(f"{w.op} {w.format} on {device} has no variant {schedule.variant!r}; has {', '.join(found)}")
    variant, params = found[schedule.variant], dict(schedule.params)
    if params not in variant.params(w):
        raise KernelError(f"{schedule.variant} of {w.format} ({w.n}, {w.k}) m={w.m} cannot be built with {params}")
    name = "_".join([w.op, w.format.lower(), f"{w.n}x{w.k}", f"m{w.m}", schedule.variant])
    kernel = variant.build(w, params, args[0], args[1:-1], args[-1], device)
    return kernel.sink(arg=KernelInfo(name=name, opts_to_apply=None if schedule.opts is None else ()))


@functools.cache
def kernel_digest(op: str, format: str) -> str:
    """Digest of what decides what a kernel of this op and format computes: our source and tinygrad's version.

    A stored schedule is served only to the source that it was validated with. Raises KernelError or FormatError.
    """
    _check_op(op)
    here = Path(__file__).parent
    layout = get_format(format).layout
    files = ["registry.py", "formats.py", f"ops/{op}.py", "unpack/__init__.py"]
    files += [] if layout == "plain" else [f"unpack/{layout}.py", "ops/warp.py"]
    h = hashlib.sha256(version("tinygrad").encode())
    for name in files:
        h.update((here / name).read_bytes())
    return h.hexdigest()


def nbytes_moved(w: Workload) -> int:
    """Bytes that one launch must move at least: every operand once."""
    return sum(int(np.prod(o.shape)) * o.dtype.itemsize for o in operands(w))
