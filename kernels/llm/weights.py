"""Loads the tensors of a GGUF file as operands of the launches that read them. Quantised tensors stay packed.

A tensor that several launches read, such as a tied embedding, is loaded once. Fused tensors are split into halves, and
the keys of latent attention in older files are transposed; nothing else is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels.api.packed import PackedWeight
from kernels.formats import get_format, reference
from kernels.models.header import Header, TensorInfo
from kernels.models.plan import PlannedLaunch, Read
from kernels.tinygrad.upload import upload

Operands = Mapping[str, Tensor | tuple[Tensor, ...]]
_VECTORS = ("norm", "weight", "bias", "sinks")  # operands whose names end like this are float32


@dataclass(frozen=True)
class RawWeight:
    """A weight [n, k] on the host: rows of blocks, uint8 [n, row_nbytes]."""

    format: str
    rows: npt.NDArray[np.uint8]
    k: int


@dataclass(frozen=True)
class Part:
    """An operand: the concatenated rows of `reads`, using part `number` of `count` equal parts of each matrix."""

    operand: str
    reads: tuple[Read, ...]
    number: int
    count: int

    @property
    def is_vector(self) -> bool:
        return self.operand.endswith(_VECTORS)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for parts with equal contents."""
        return self.is_vector, self.number, self.count, *((r.tensor.name, r.half) for r in self.reads)


class Weights:
    """Loads tensors on demand and remembers them. nbytes: of all weights on the device. opened: whether the model's
    files are read."""

    def __init__(self, header: Header, device: str, *, opened: bool = True) -> None:
        self._device, self.nbytes = device, 0
        self._tensors = {t.name: t for t in header.tensors}
        self._files = [np.memmap(Path(name), np.uint8, "r") for name in header.files] if opened else []
        self._known: dict[tuple[object, ...], PackedWeight | Tensor] = {}

    def operands(self, launch: PlannedLaunch) -> Operands:
        """The operands that a launch reads from the file, on the device."""
        found: dict[str, Tensor | tuple[Tensor, ...]] = {}
        for part in _parts(launch):
            loaded = self._loaded(part)
            found[part.operand] = loaded.planes if isinstance(loaded, PackedWeight) else loaded
        return found

    def host(self, launch: PlannedLaunch) -> dict[str, RawWeight | npt.NDArray[np.float32]]:
        """The operands that a launch reads from the file, on the host: weights as packed rows, vectors as float32."""
        return {part.operand: self._vector(part) if part.is_vector else self._weight(part) for part in _parts(launch)}

    def floats(self, t: TensorInfo) -> npt.NDArray[np.float32]:
        """The tensor, dequantised to float32, in its shape."""
        rows = self._rows(t)
        return reference.dequantize(rows, t.format, (rows.shape[0], t.shape[-1])).reshape(t.shape).astype(np.float32)

    def _loaded(self, part: Part) -> PackedWeight | Tensor:
        if part.key not in self._known:
            self._known[part.key] = put = self._put(part)
            self.nbytes += put.nbytes if isinstance(put, PackedWeight) else put.nbytes()
        return self._known[part.key]

    def _put(self, part: Part) -> PackedWeight | Tensor:
        """A part on the device."""
        if part.is_vector:
            return upload(self._vector(part), self._device)
        raw = self._weight(part)
        return PackedWeight.from_blocks(raw.rows, raw.format, (len(raw.rows), raw.k), self._device)

    def _vector(self, part: Part) -> npt.NDArray[np.float32]:
        halves = (np.split(self.floats(r.tensor), part.count, axis=-1)[part.number] for r in part.reads)
        return np.concatenate([half.reshape(-1) for half in halves])

    def _weight(self, part: Part) -> RawWeight:
        first = part.reads[0].tensor
        found = [_matrix_part(self._half(r), r.tensor, part.number, part.count) for r in part.reads]
        rows = np.concatenate(found) if len(found) > 1 else found[0]  # avoids a copy of a large tensor
        return RawWeight(first.format, rows, first.shape[-1])

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
    grouped: dict[str, list[Read]] = {}
    for read in launch.reads:
        grouped.setdefault(read.operand, []).append(read)
    for names, reads in grouped.items():
        operands = names.split("+")
        for number, operand in enumerate(operands):
            if operand:
                yield Part(operand, tuple(reads), number, len(operands))


def _matrix_part(rows: npt.NDArray[np.uint8], t: TensorInfo, number: int, count: int) -> npt.NDArray[np.uint8]:
    """Part `number` of `count` equal parts of each matrix's rows."""
    if count == 1:
        return rows
    matrices = t.shape[0] if len(t.shape) == 3 else 1
    whole = rows.reshape(matrices, count, -1, rows.shape[-1])
    return np.ascontiguousarray(whole[:, number]).reshape(-1, rows.shape[-1])
