"""Loads the tensors of a GGUF file as operands of the launches that read them. Quantised tensors stay packed.

A tensor that several launches read, such as a tied embedding, is loaded once. Fused tensors are split into halves, the
keys of latent attention in older files are transposed, and the rows of weights that launches over int8 read are laid
out in tiles; nothing else is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels.formats import get_format, reference, split_planes
from kernels.formats.tiles import tile_planes
from kernels.models.header import Header, TensorInfo
from kernels.models.plan import PlannedLaunch, Read
from kernels.ops.q8.spec import Q8
from kernels.serve.server import shared
from kernels.tinygrad.upload import upload

Operands = Mapping[str, Tensor | tuple[Tensor, ...]]
Planes = tuple[npt.NDArray[np.generic], ...]
_VECTORS = ("norm", "weight", "bias", "sinks")  # operands whose names end like this are float32


@dataclass(frozen=True)
class RawWeight:
    """A weight [n, k] on the host: rows of blocks, uint8 [n, row_nbytes]."""

    format: str
    rows: npt.NDArray[np.uint8]
    k: int


@dataclass(frozen=True)
class Part:
    """An operand: the concatenated rows of `reads`, using part `number` of `count` equal parts of each matrix. tiled:
    whether rows of a weight are laid out in tiles."""

    operand: str
    reads: tuple[Read, ...]
    number: int
    count: int
    tiled: bool

    @property
    def is_vector(self) -> bool:
        return self.operand.endswith(_VECTORS)

    @property
    def matrices(self) -> int:
        """The number of stacked matrices."""
        return _matrices(self.reads[0].tensor)

    @property
    def format(self) -> str:
        return self.reads[0].tensor.format

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, k] of a weight, with the rows of all its matrices."""
        shapes = [r.tensor.shape for r in self.reads]
        return sum(math.prod(shape[:-1]) for shape in shapes) // self.count, shapes[0][-1]

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for parts with equal contents."""
        return self.is_vector, self.tiled, self.number, self.count, *((r.tensor.name, r.half) for r in self.reads)


class Weights:
    """Loads tensors on demand and remembers them.

    nbytes      of all weights on the device
    on_loaded   called with `nbytes` after each weight
    opened      whether the model's files are read
    """

    on_loaded: Callable[[int], None]

    def __init__(self, header: Header, device: str, *, opened: bool = True) -> None:
        self._device, self.nbytes, self.on_loaded = device, 0, lambda nbytes: None
        self._tensors = {t.name: t for t in header.tensors}
        self._files = [np.memmap(Path(name), np.uint8, "r") for name in header.files] if opened else []
        self._known: dict[tuple[object, ...], Tensor | tuple[Tensor, ...]] = {}

    def operands(self, launch: PlannedLaunch) -> Operands:
        """The operands that a launch reads from the file, on the device."""
        return {part.operand: self._loaded(part) for part in _parts(launch)}

    def host(self, launch: PlannedLaunch) -> dict[str, RawWeight | npt.NDArray[np.float32]]:
        """The operands that a launch reads from the file, on the host: weights as packed rows, vectors as float32."""
        return {part.operand: self._vector(part) if part.is_vector else self._weight(part) for part in _parts(launch)}

    def floats(self, t: TensorInfo) -> npt.NDArray[np.float32]:
        """The tensor, dequantised to float32, in its shape."""
        rows = self._rows(t)
        return reference.dequantize(rows, t.format, (rows.shape[0], t.shape[-1])).reshape(t.shape).astype(np.float32)

    def _loaded(self, part: Part) -> Tensor | tuple[Tensor, ...]:
        """A part on the device: a vector, or the planes of a weight and the tables of its format."""
        if part.key not in self._known:
            arrays = (self._vector(part),) if part.is_vector else self._planes(part)
            put = tuple(upload(array, self._device) for array in arrays)
            self._known[part.key] = put[0] if part.is_vector else (*put, *shared().tables(part.format, self._device))
            self.nbytes += sum(array.nbytes for array in arrays)
            self.on_loaded(self.nbytes)
        return self._known[part.key]

    def _planes(self, part: Part) -> Planes:
        """The planes of a weight on the host, as the launches read them."""
        planes = split_planes(self._weight(part).rows, part.format, part.shape)
        return tile_planes(part.format, planes, part.matrices) if part.tiled else planes

    def _vector(self, part: Part) -> npt.NDArray[np.float32]:
        halves = (np.split(self.floats(r.tensor), part.count, axis=-1)[part.number] for r in part.reads)
        return np.concatenate([half.reshape(-1) for half in halves])

    def _weight(self, part: Part) -> RawWeight:
        found = [_matrix_part(self._half(r), r.tensor, part.number, part.count) for r in part.reads]
        rows = np.concatenate(found) if len(found) > 1 else found[0]  # avoids a copy of a large tensor
        return RawWeight(part.format, rows, part.shape[1])

    def _rows(self, t: TensorInfo) -> npt.NDArray[np.uint8]:
        """Raw rows of blocks, uint8 [product of all dimensions but the last, bytes], as a view of the file."""
        raw = self._files[t.file][t.offset : t.offset + t.nbytes]
        return raw.reshape(-1, get_format(t.format).row_nbytes(t.shape[-1]))

    def _half(self, read: Read) -> npt.NDArray[np.uint8]:
        """The raw rows of a read. If `half` is set, the tensor has each head's key rows followed by its value rows, and
        one of the two is selected."""
        whole = self._tensors[read.tensor.name]
        if not read.half:
            return self._rows(whole)
        heads, n, k = read.tensor.shape
        keys = k if read.half == "keys" else whole.shape[0] // heads - n
        if read.half == "values":
            rows = self._rows(whole)
            return rows.reshape(heads, -1, rows.shape[-1])[:, keys:].reshape(heads * n, -1)
        values = self.floats(whole).reshape(heads, -1, whole.shape[-1])[:, :keys]
        turned = np.ascontiguousarray(values.transpose(0, 2, 1), np.float16)
        return turned.view(np.uint8).reshape(heads * n, -1)


def _parts(launch: PlannedLaunch) -> Iterator[Part]:
    """The operands that a launch reads from the file. "gate+up" is two operands."""
    tiled = launch.x_dtype == Q8
    grouped: dict[str, list[Read]] = {}
    for read in launch.reads:
        grouped.setdefault(read.operand, []).append(read)
    for names, reads in grouped.items():
        operands = names.split("+")
        for number, operand in enumerate(operands):
            if operand:
                yield Part(operand, tuple(reads), number, len(operands), tiled and not operand.endswith(_VECTORS))


def _matrix_part(rows: npt.NDArray[np.uint8], t: TensorInfo, number: int, count: int) -> npt.NDArray[np.uint8]:
    """Part `number` of `count` equal parts of each matrix's rows."""
    if count == 1:
        return rows
    whole = rows.reshape(_matrices(t), count, -1, rows.shape[-1])
    return np.ascontiguousarray(whole[:, number]).reshape(-1, rows.shape[-1])


def _matrices(t: TensorInfo) -> int:
    """The number of matrices in a tensor, each of which belongs to an expert or a head if there are several."""
    return t.shape[0] if len(t.shape) == 3 else 1
