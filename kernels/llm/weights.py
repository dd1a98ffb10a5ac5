"""The tensors of a GGUF file on a device, as the operands of the launches that read them; quantised ones stay packed.

A tensor that several launches read, such as a tied embedding, is there once. Nothing is computed but what the launches
cannot do: the halves of fused tensors are taken apart, and older files' keys of latent attention transposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels import reference
from kernels.formats import get_format
from kernels.models.header import Header, TensorInfo
from kernels.models.plan import Launch, Read
from kernels.packed import PackedWeight
from kernels.upload import upload

Operands = Mapping[str, Tensor | tuple[Tensor, ...]]
_VECTORS = ("norm", "weight", "bias", "sinks")  # how the names of operands end that are float32


class Weights:
    """Loads on demand and remembers. `nbytes`: what it has put on the device."""

    def __init__(self, header: Header, device: str) -> None:
        self._device, self.nbytes = device, 0
        self._tensors = {t.name: t for t in header.tensors}
        self._files = [np.memmap(Path(name), np.uint8, "r") for name in header.files]
        self._known: dict[tuple[object, ...], PackedWeight | Tensor] = {}

    def operands(self, launch: Launch) -> Operands:
        """What a launch reads from the file, by operand."""
        grouped: dict[str, list[Read]] = {}
        for read in launch.reads:
            grouped.setdefault(read.operand, []).append(read)
        found: dict[str, Tensor | tuple[Tensor, ...]] = {}
        for names, reads in grouped.items():
            operands = names.split("+")
            for number, operand in ((i, name) for i, name in enumerate(operands) if name):
                loaded = self._load(operand, reads, number, len(operands))
                found[operand] = loaded.planes if isinstance(loaded, PackedWeight) else loaded
        return found

    def floats(self, t: TensorInfo) -> npt.NDArray[np.float32]:
        """A tensor's values, float32, in its shape."""
        rows = self._rows(t)
        return reference.dequantize(rows, t.format, (rows.shape[0], t.shape[-1])).reshape(t.shape).astype(np.float32)

    def _load(self, operand: str, reads: list[Read], number: int, count: int) -> PackedWeight | Tensor:
        vector = operand.endswith(_VECTORS)
        key = (vector, number, count, *((r.tensor.name, r.half) for r in reads))
        if key not in self._known:
            self._known[key] = found = (self._vector if vector else self._weight)(reads, number, count)
            self.nbytes += found.nbytes if isinstance(found, PackedWeight) else found.nbytes()
        return self._known[key]

    def _vector(self, reads: list[Read], number: int, count: int) -> Tensor:
        parts = [np.split(self.floats(r.tensor), count, axis=-1)[number].reshape(-1) for r in reads]
        return upload(np.concatenate(parts), self._device)

    def _weight(self, reads: list[Read], number: int, count: int) -> PackedWeight:
        format, k = reads[0].tensor.format, reads[0].tensor.shape[-1]
        parts = [_part(self._half(r), r.tensor, number, count) for r in reads]
        rows = np.concatenate(parts) if len(parts) > 1 else parts[0]  # of a large tensor no copy
        return PackedWeight.from_blocks(rows, format, (len(rows), k), self._device)

    def _rows(self, t: TensorInfo) -> npt.NDArray[np.uint8]:
        """Raw rows of blocks, uint8 [all dimensions but the last, bytes]: the file's own, not a copy."""
        raw = self._files[t.file][t.offset : t.offset + t.nbytes]
        return raw.reshape(-1, get_format(t.format).row_nbytes(t.shape[-1]))

    def _half(self, read: Read) -> npt.NDArray[np.uint8]:
        """Of a tensor whose rows are, for each head, those of its keys and then those of its values: one of the two."""
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


def _part(rows: npt.NDArray[np.uint8], t: TensorInfo, number: int, count: int) -> npt.NDArray[np.uint8]:
    """The number-th of `count` equal parts of each matrix's rows."""
    if count == 1:
        return rows
    matrices = t.shape[0] if len(t.shape) == 3 else 1
    whole = rows.reshape(matrices, count, -1, rows.shape[-1])
    return np.ascontiguousarray(whole[:, number]).reshape(-1, rows.shape[-1])
