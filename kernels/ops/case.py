"""Operands of a workload and what its outputs must be: the forms of a question and an answer, shared by all ops."""

from __future__ import annotations

from collections.abc import Mapping
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


_SLAB_WEIGHTS = 1 << 25  # dequantised at a time


class InputsError(AutotuneError, ValueError):
    """There are no inputs for this workload."""


@dataclass(frozen=True)
class PackedRows:
    """A weight [n, k] in raw blocks: uint8 [r, row_nbytes], r <= n, whose rows then repeat."""

    format: str
    raw: npt.NDArray[np.uint8]
    n: int
    k: int

    def rows(self, which: npt.NDArray[np.integer]) -> Doubles:
        """Dequantised rows by their numbers [...]: float64 [..., k]"""
        chosen = self.raw[which.reshape(-1) % len(self.raw)]
        return (
            reference.dequantize(chosen, self.format, (len(chosen), self.k))
            .astype(np.float64)
            .reshape(*which.shape, self.k)
        )

    def times(self, x: Doubles) -> tuple[Doubles, Doubles]:
        """The first r rows times x [..., k]: [..., r]; and the norm of each of these rows: [r]"""
        out, norms = np.empty((*x.shape[:-1], len(self.raw))), np.empty(len(self.raw))
        step = max(1, _SLAB_WEIGHTS // self.k)
        for start in range(0, len(self.raw), step):  # in slabs: the whole in float64 can be gigabytes
            weight = self.rows(np.arange(start, min(start + step, len(self.raw))))
            out[..., start : start + step] = x @ weight.T
            norms[start : start + step] = np.linalg.norm(weight, axis=1)
        return out, norms

    def planes(self, name: str) -> dict[str, Array]:
        """The kernel's operands of this weight: its planes, and the tables of its format."""
        whole = split_planes(self.raw[np.arange(self.n) % len(self.raw)], self.format, (self.n, self.k))
        arrays = zip(get_format(self.format).arrays, (*whole, *tables.arrays(self.format)), strict=True)
        return {f"{name}.{a.name}": content for a, content in arrays}


@dataclass(frozen=True)
class Inputs:
    """What a launch reads, by operand: arrays as they are (of `update` the content before the launch), and weights by
    the name that their planes have in common. position: of the first token, for ops of a cache."""

    arrays: Mapping[str, Array]
    weights: Mapping[str, PackedRows] = field(default_factory=dict)
    position: int = 0

    def doubles(self, name: str) -> Doubles:
        return self.arrays[name].astype(np.float64)


@dataclass(frozen=True)
class Truth:
    """What an output must be, as a matrix [m, n] of float64; an output of more dimensions has its last as n.

    reference: [m, r], the first r <= n columns, which then repeat. An element's error is judged against what is typical
    for it, row_scale[i] * column_scale[j]: for a product the norms of its operands' rows, over sqrt(k) in all.
    """

    reference: Doubles
    row_scale: Doubles
    column_scale: Doubles
    n: int

    @property
    def m(self) -> int:
        return int(self.reference.shape[0])

    def rows(self, start: int, stop: int) -> tuple[Doubles, Doubles]:
        """Reference and typical size of the output's rows [start, stop), each [stop - start, n]."""
        columns = np.arange(self.n) % self.reference.shape[1]
        scale = np.outer(self.row_scale[start:stop], self.column_scale[columns])
        return self.reference[start:stop, columns], scale

    @staticmethod
    def of(values: Doubles, scale: Doubles | None = None) -> Truth:
        """An output that is known whole: `values` [..., n], with `scale` [...] typical for each of its rows (default:
        the row's root mean square)."""
        flat = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        rows = np.sqrt(np.square(flat).mean(1)) if scale is None else np.asarray(scale, np.float64).reshape(-1)
        return Truth(flat, rows, np.ones(flat.shape[1]), flat.shape[1])

    @staticmethod
    def exactly(values: Array) -> Truth:
        """An output of integers, each of which must be met."""
        flat = values.astype(np.float64).reshape(-1, values.shape[-1])
        return Truth(flat, np.zeros(len(flat)), np.ones(flat.shape[1]), flat.shape[1])


Truths = dict[str, Truth]
"""By name, of every operand of role out or update (all of its content after the launch)."""


@dataclass(frozen=True)
class Case:
    """One set of operands. arrays: by operand name, those of role `out` left out; for `update` the content before the
    launch."""

    arrays: Mapping[str, Array]
    truths: Truths

    def weight_nbytes(self, operands: tuple[Operand, ...]) -> int:
        """Bytes of the operands that a launch should find in no cache."""
        return sum(self.arrays[o.name].nbytes for o in operands if o.role == WEIGHT)


def outputs(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """The operands that a kernel writes."""
    return tuple(o for o in operands if o.role in (OUT, UPDATE))
