"""Random operands of a workload and what its outputs must be: the form of an answer, shared by every op's reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.op import OUT, UPDATE, WEIGHT, Operand

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


class InputsError(ValueError):
    """There are no inputs for this workload."""


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


@dataclass(frozen=True)
class Case:
    """One set of operands. arrays: by operand name, those of role `out` left out; for `update` the content before the
    launch. truths: by name, of every operand of role out or update (all of its content after the launch)."""

    arrays: Mapping[str, Array]
    truths: Mapping[str, Truth]

    def weight_nbytes(self, operands: tuple[Operand, ...]) -> int:
        """Bytes of the operands that a launch should find in no cache."""
        return sum(self.arrays[o.name].nbytes for o in operands if o.role == WEIGHT)


def outputs(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """The operands that a kernel writes."""
    return tuple(o for o in operands if o.role in (OUT, UPDATE))
