"""`PackedWeight`: a quantised weight that stays packed on the device, and `linear`, which multiplies by it.

A weight holds the file's bits, split into planes (see `formats`). The schedule of each kernel is looked up when the
kernel is first built; nothing is ever searched here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from tinygrad import Device, Tensor, UOp

from db.records import M_BUCKETS, Target, Workload
from kernels import devices
from kernels.api import arguments
from kernels.api.arguments import FLOATS, ArgumentError
from kernels.formats import FormatError, get_format, split_planes
from kernels.formats.unpack import tables
from kernels.serve import sink
from kernels.serve.resolution import resolve
from kernels.tinygrad.upload import upload


def bucket(tokens: int) -> int:
    """The smallest token bucket that holds `tokens`; the largest bucket for more."""
    return next((b for b in M_BUCKETS if tokens <= b), M_BUCKETS[-1])


@dataclass(frozen=True)
class PackedWeight:
    """A weight [n, k] in a GGML format, on one device: its planes, and then the tables of its format."""

    format: str
    shape: tuple[int, int]
    planes: tuple[Tensor, ...]
    device: str
    target: Target

    @staticmethod
    def from_blocks(
        raw: npt.NDArray[np.uint8] | Tensor, format: str, shape: tuple[int, int], device: str | None = None
    ) -> PackedWeight:
        """Packs raw rows of blocks, uint8 [n, row_nbytes], as a GGUF file holds them.

        Raises FormatError for a format without kernels, or rows that do not fit `shape` (n, k), ArgumentError for rows
        that are no array, DeviceError for a device that does not open.
        """
        n, k = shape
        device = Device.canonicalize(device)
        target = devices.describe_target(devices.named(device))
        if isinstance(raw, Tensor):
            raw = raw.numpy()
        if not isinstance(raw, np.ndarray):
            raise ArgumentError(f"PackedWeight.from_blocks: raw is a {type(raw).__qualname__}, not an array of uint8")
        if raw.dtype != np.uint8:
            raise FormatError(f"raw rows are uint8, saw {raw.dtype}")
        planes = [upload(plane, device) for plane in split_planes(raw, format, (n, k))]
        # both are remembered now: tinygrad forbids opening a device inside a captured function, where linear() may run
        sink.renderer(device)
        arrays = (*planes, *_tables(format, device))
        return PackedWeight(format, (n, k), arrays, device, target)

    @property
    def nbytes(self) -> int:
        """Of the weight itself: tables are shared."""
        return self.shape[0] * get_format(self.format).row_nbytes(self.shape[1])


@functools.cache
def _tables(format: str, device: str) -> tuple[Tensor, ...]:
    """A format's tables, on a device once."""
    return tuple(upload(array, device) for array in tables.arrays(format))


def _multiply(x: Tensor, w: PackedWeight, x_dtype: str) -> Tensor:
    """x [m, k] with m a bucket -> [m, n]."""
    n, k = w.shape
    workload = Workload("linear", w.format, n, k, cast(int, x.shape[0]), x_dtype, x_dtype)
    schedule = resolve(workload, w.target).schedule
    out = Tensor.empty(workload.m, n, dtype=x.dtype, device=w.device)

    def kernel(*args: UOp) -> UOp:
        return sink.kernel(workload, schedule, args, w.device)

    return Tensor.custom_kernel(out, *w.planes, x.contiguous(), fxn=kernel)[0]


def linear(x: Tensor, w: PackedWeight) -> Tensor:
    """x [..., k] times w [n, k] transposed: [..., n], in x's dtype (float32 or float16), summed in float32.

    Tokens (the product of the leading dimensions) are padded to a bucket of M_BUCKETS; more than the largest are taken
    in pieces. One leading dimension may be symbolic: it is padded to its maximum. Raises ArgumentError for other
    dtypes, another k, no tokens or another device.
    """
    arguments.tensor("linear", "x", x, arguments.FLOAT)
    arguments.packed("linear", w=w)
    n, k = w.shape
    if x.ndim < 1 or x.shape[-1] != k:
        raise ArgumentError(f"linear: x of shape {arguments.shape_of(x)} does not end in k={k} of the weight {w.shape}")
    arguments.same_device("linear", "x", x, w.device)
    lead = x.shape[:-1]
    sizes = tuple(s if isinstance(s, int) else int(s.vmax) for s in lead)
    if sizes != lead:
        x = x.pad_to(*sizes, k)
    tokens = int(np.prod(sizes))
    if not tokens:
        raise ArgumentError(f"linear: x of shape {arguments.shape_of(x)} has no tokens: at least 1 is needed")
    x = x.reshape(tokens, k)
    pieces = []
    for start in range(0, tokens, M_BUCKETS[-1]):
        piece = x[start : start + M_BUCKETS[-1]]
        m = cast(int, piece.shape[0])
        pieces.append(_multiply(piece.pad_to(bucket(m), k), w, FLOATS[x.dtype])[:m])
    out = (pieces[0] if len(pieces) == 1 else pieces[0].cat(*pieces[1:])).reshape(*sizes, n)
    return out if sizes == lead else out.shrink(tuple((0, s) for s in (*lead, n)))
