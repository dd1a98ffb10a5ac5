"""`PackedWeight`, a quantised weight that stays packed on the device, and `linear`, which multiplies by it.

A weight holds the file's bits, split into planes (see `formats`). A kernel's schedule is looked up when the kernel is
first built, and never searched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from tinygrad import Device, Tensor

from db.records import M_BUCKETS, Target, Workload
from kernels.api import arguments
from kernels.api.arguments import FLOATS, ArgumentError
from kernels.api.launch import launch
from kernels.formats import FORMATS, Format, FormatError, get_format, known, split_planes
from kernels.models.header import read_header
from kernels.serve.server import shared
from kernels.tinygrad.upload import upload

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType


def bucket(tokens: int) -> int:
    """The smallest bucket of at least `tokens` tokens, or the largest bucket if there is none."""
    return next((b for b in M_BUCKETS if tokens <= b), M_BUCKETS[-1])


@dataclass(frozen=True)
class PackedWeight:
    """A weight [n, k] in a GGML format, on one device. planes: the weight's planes, then the tables of its format."""

    format: str
    shape: tuple[int, int]
    planes: tuple[Tensor, ...]
    device: str
    target: Target

    @staticmethod
    def from_blocks(
        raw: npt.NDArray[np.generic] | Tensor,
        format: str | GGMLQuantizationType,
        shape: tuple[int, int],
        device: str | None = None,
    ) -> PackedWeight:
        """Packs raw rows of blocks as they are in a GGUF file.

        raw      uint8 [n, row_nbytes]. For F16 and F32 also float16 or float32 [n, k], as `gguf.GGUFReader` returns
                 them
        format   a GGML type by its name, in upper or lower case, or a member of gguf's enum
        shape    (n, k)

        Raises FormatError for a format without kernels and for rows that do not fit the shape, ArgumentError for
        arguments of other types, DeviceError for a device that does not open.
        """
        op = "PackedWeight.from_blocks"
        name, (n, k) = _format_name(op, format), _shape(op, shape)
        fmt = get_format(name)
        if device is not None and not isinstance(device, str):
            raise ArgumentError(f"{op}: device is {arguments.shown(device)}, expected the name of one, as in 'CPU'")
        device = Device.canonicalize(device)
        opened = shared().device(device)
        if isinstance(raw, Tensor):
            raw = raw.numpy()
        if not isinstance(raw, np.ndarray):
            raise ArgumentError(f"{op}: raw is {arguments.kind(raw)}, expected an array of uint8")
        planes = [upload(plane, device) for plane in split_planes(_rows(raw, fmt), name, (n, k))]
        return PackedWeight(name, (n, k), (*planes, *shared().tables(name, device)), device, opened.target)

    @staticmethod
    def from_gguf(path: str | Path, name: str, device: str | None = None) -> PackedWeight:
        """Packs the tensor `name` of a GGUF file, such as "blk.0.attn_q.weight". `path` may be any shard of a split
        file. Stacked experts [experts, n, k] become one weight [experts * n, k].

        Raises HeaderError for a file that cannot be read, ArgumentError for an unknown name and for a vector,
        FormatError for a format without kernels, DeviceError for a device that does not open.
        """
        op = "PackedWeight.from_gguf"
        header = read_header(path)
        found = next((t for t in header.tensors if t.name == name), None)
        if found is None:
            names = [t.name for t in header.tensors]
            near = ", ".join(get_close_matches(str(name), names)) or f"none; it has {len(names)} tensors"
            raise ArgumentError(f"{op}: name is {arguments.shown(name)}, which is not in {path}; similar names: {near}")
        file = header.files[found.file]
        if "://" in file:
            raise ArgumentError(f"{op}: path is {path}, expected a local file: download it first")
        if len(found.shape) < 2:
            raise ArgumentError(f"{op}: {name} of shape {found.shape} is a vector, expected a weight [n, k]")
        if found.format not in FORMATS:
            raise FormatError(f"{op}: no kernels for {found.format}, the format of {name}; there are {known()}")
        n, k = math.prod(found.shape[:-1]), found.shape[-1]
        rows = np.memmap(file, np.uint8, "r", found.offset, (n, get_format(found.format).row_nbytes(k)))
        return PackedWeight.from_blocks(rows, found.format, (n, k), device)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight, without the tables, which weights share."""
        return self.shape[0] * get_format(self.format).row_nbytes(self.shape[1])


def _format_name(op: str, format: object) -> str:
    """The name of a GGML type, "Q4_K". Any Enum is accepted by its name, because importing gguf for its enum is
    slow."""
    name = format.name if isinstance(format, Enum) else format
    if not isinstance(name, str):
        raise ArgumentError(
            f"{op}: format is {arguments.shown(format)}, expected a GGML type such as 'Q4_K'; there are {known()}"
        )
    return name.upper()


def _shape(op: str, shape: object) -> tuple[int, int]:
    """(n, k) as Python integers. Raises ArgumentError."""
    pair = tuple(shape) if isinstance(shape, list | tuple | np.ndarray) else ()
    if len(pair) != 2 or not all(isinstance(size, Integral) and not isinstance(size, bool) for size in pair):
        raise ArgumentError(f"{op}: shape is {arguments.shown(shape)}, expected (n, k), the weight's rows and columns")
    n, k = map(int, pair)
    return n, k


def _rows(raw: npt.NDArray[np.generic], fmt: Format) -> npt.NDArray[np.uint8]:
    """Rows of bytes. Rows of F16 and F32 may also be arrays of float16 and float32."""
    if raw.dtype == np.uint8:
        return cast(npt.NDArray[np.uint8], raw)
    if raw.dtype == {"F16": np.float16, "F32": np.float32}.get(fmt.name) and raw.ndim == 2:
        return np.ascontiguousarray(raw).view(np.uint8)
    also = {"F16": ", or float16", "F32": ", or float32"}.get(fmt.name, "")
    raise FormatError(f"{fmt.name}: raw rows are uint8{also}, saw {raw.dtype} of shape {raw.shape}")


def _multiply(x: Tensor, w: PackedWeight, x_dtype: str) -> Tensor:
    """x [m, k] with m a bucket -> [m, n]."""
    n, k = w.shape
    workload = Workload("linear", w.format, n, k, cast(int, x.shape[0]), x_dtype, x_dtype)
    return launch(workload, w.device, {"w": w.planes, "x": x})[0]


def linear(x: Tensor, w: PackedWeight) -> Tensor:
    """x [..., k] times w [n, k] transposed: [..., n], in x's dtype (float32 or float16), summed in float32.

    The number of tokens is the product of the leading dimensions. It is padded to one of M_BUCKETS; more tokens than
    the largest bucket are processed in several launches. One leading dimension may be symbolic, and is padded to its
    maximum. Raises ArgumentError for another dtype, k or device, and for no tokens.
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
        raise ArgumentError(f"linear: x of shape {arguments.shape_of(x)} has no tokens, expected at least 1")
    x = x.reshape(tokens, k)
    pieces = []
    for start in range(0, tokens, M_BUCKETS[-1]):
        piece = x[start : start + M_BUCKETS[-1]]
        m = cast(int, piece.shape[0])
        pieces.append(_multiply(piece.pad_to(bucket(m), k), w, FLOATS[x.dtype])[:m])
    out = (pieces[0] if len(pieces) == 1 else pieces[0].cat(*pieces[1:])).reshape(*sizes, n)
    return out if sizes == lead else out.shrink(tuple((0, s) for s in (*lead, n)))
