"""The operands of a workload and what its outputs must be, in the form that the references of all ops share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import AutotuneError
from kernels.formats import get_format, reference, split_planes
from kernels.formats.unpack import tables
from kernels.ops.op import OUT, UPDATE, WEIGHT, Operand

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


_SLAB_WEIGHTS = 1 << 25  # weights that are dequantised at a time


class InputsError(AutotuneError, ValueError):
    """There are no inputs for this workload."""


@dataclass(frozen=True)
class PackedRows:
    """A weight [n, k] as raw blocks. raw: uint8 [r, row_nbytes]; row i of the weight is row i % r of it, where r <=
    n."""

    format: str
    raw: npt.NDArray[np.uint8]
    n: int
    k: int

    def rows(self, which: npt.NDArray[np.integer]) -> Doubles:
        """The dequantised rows with the numbers `which` [...]: float64 [..., k]."""
        chosen = self.raw[which.reshape(-1) % len(self.raw)]
        return (
            reference.dequantize(chosen, self.format, (len(chosen), self.k))
            .astype(np.float64)
            .reshape(*which.shape, self.k)
        )

    def times(self, x: Doubles) -> tuple[Doubles, Doubles]:
        """Two results for the rows of `raw`: their products with x [..., k], which are [..., r], and their norms
        [r]."""
        out, norms = np.empty((*x.shape[:-1], len(self.raw))), np.empty(len(self.raw))
        step = max(1, _SLAB_WEIGHTS // self.k)
        for start in range(0, len(self.raw), step):  # the whole weight in float64 can be gigabytes
            weight = self.rows(np.arange(start, min(start + step, len(self.raw))))
            out[..., start : start + step] = x @ weight.T
            norms[start : start + step] = np.linalg.norm(weight, axis=1)
        return out, norms

    def planes(self, name: str) -> dict[str, Array]:
        """The operands of a kernel for the weight called `name`: its planes, then the tables of its format."""
        whole = split_planes(self.raw[np.arange(self.n) % len(self.raw)], self.format, (self.n, self.k))
        arrays = zip(get_format(self.format).arrays, (*whole, *tables.arrays(self.format)), strict=True)
        return {f"{name}.{a.name}": content for a, content in arrays}


@dataclass(frozen=True)
class Inputs:
    """What a launch reads. arrays: by operand; for an operand of role `update`, its content before the launch. weights:
    by the part of the operands' names that the planes of a weight share. position: that of the first token, for ops
    with a cache."""

    arrays: Mapping[str, Array]
    weights: Mapping[str, PackedRows] = field(default_factory=dict)
    position: int = 0

    def doubles(self, name: str) -> Doubles:
        return self.arrays[name].astype(np.float64)


@dataclass(frozen=True)
class Truth:
    """What an output must be, as a matrix [m, n] of float64. n is the last dimension of the output.

    reference: [m, r]; column j of the output is column j % r of it, where r <= n. The error of element (i, j) is judged
    against its typical size, row_scale[i] * column_scale[j]. For a product that is the product of the norms of the two
    rows, divided by sqrt(k).

    read: (words of some rows of the output, which rows) -> what is compared with the reference. None: the output's
    numbers.
    """

    reference: Doubles
    row_scale: Doubles
    column_scale: Doubles
    n: int
    read: Callable[[Array, slice], Doubles] | None = None

    @property
    def m(self) -> int:
        return int(self.reference.shape[0])

    def rows(self, start: int, stop: int) -> tuple[Doubles, Doubles]:
        """The reference and the typical size of rows start .. stop - 1 of the output, each [stop - start, n]."""
        columns = np.arange(self.n) % self.reference.shape[1]
        scale = np.outer(self.row_scale[start:stop], self.column_scale[columns])
        return self.reference[start:stop, columns], scale

    @staticmethod
    def of(values: Doubles, scale: Doubles | None = None) -> Truth:
        """An output whose every value is known: `values` [..., n]. scale [...]: the typical size of each row, by
        default its root mean square."""
        flat = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        rows = np.sqrt(np.square(flat).mean(1)) if scale is None else np.asarray(scale, np.float64).reshape(-1)
        return Truth(flat, rows, np.ones(flat.shape[1]), flat.shape[1])

    @staticmethod
    def exactly(values: Array) -> Truth:
        """An output of integers, each of which must be exact."""
        flat = values.astype(np.float64).reshape(-1, values.shape[-1])
        return Truth(flat, np.zeros(len(flat)), np.ones(flat.shape[1]), flat.shape[1])


Truths = dict[str, Truth]
"""Operand of role out or update -> all of its content after the launch."""


@dataclass(frozen=True)
class Case:
    """One set of operands. arrays: by operand, without those of role `out`; for an operand of role `update`, its
    content before the launch."""

    arrays: Mapping[str, Array]
    truths: Truths

    def weight_nbytes(self, operands: tuple[Operand, ...]) -> int:
        """Bytes of the operands that should be in no processor cache when a launch begins."""
        return sum(self.arrays[o.name].nbytes for o in operands if o.role == WEIGHT)


def outputs(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """The operands that a kernel writes."""
    return tuple(o for o in operands if o.role in (OUT, UPDATE))
