"""What an op is: its variants, its arguments, and what is known about it before anyone has tuned it. No kernels here.

Every op of `kernels.ops` is one `Op`. The registry, the tuner, the validator and the lookup see nothing else of it, so
that a new op is one module, one reference (`kernels.ops.references`) and one line in the registry.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.backends import Backend, Needs
from kernels.ops.spec import KernelError as KernelError
from kernels.ops.spec import Spec
from kernels.tinygrad.uops import DType

Params = dict[str, int]
Args = Mapping[str, UOp]
"""A kernel's arguments by name."""

DTYPES: dict[str, DType] = {"float32": dtypes.float32, "float16": dtypes.float16, "int32": dtypes.int32}

OUT, UPDATE, WEIGHT, INPUT = "out", "update", "weight", "input"


@dataclass(frozen=True)
class Operand:
    """A kernel argument. Its `role`:

    out     written whole, not read
    update  written in part: what is not written keeps its content (a cache)
    weight  read, and large enough to be out of every cache when its turn comes (weights, a cache)
    input   read, and just written by the launch before
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    role: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)


@dataclass(frozen=True)
class Variable:
    """A tinygrad Variable that the kernel takes beside its buffers. `tuned` is its value while the kernel is tuned."""

    name: str
    low: int
    high: int
    tuned: int

    @property
    def uop(self) -> UOp:
        """As a kernel's body refers to it."""
        return UOp.variable(self.name, self.low, self.high, param=True)


def _nothing(w: Workload, params: Params) -> Needs:
    return Needs()


@dataclass(frozen=True)
class Variant:
    """`build(workload, params, args, device)` -> the kernel's body; `params(workload)`: those it can be built with,
    the default first. `needs(workload, params)`: what it needs of a backend. `schedulable`: False where the variant
    fixes its own structure and takes no opts. `must`: an opt that it is only right with ("TC")."""

    build: Callable[[Workload, Params, Args, str], UOp]
    params: Callable[[Workload], tuple[Params, ...]]
    needs: Callable[[Workload, Params], Needs] = _nothing
    schedulable: bool = True
    must: str | None = None

    def on(self, w: Workload, row: Backend) -> Variant:
        """The same with the parameters for `w` that fit a backend."""
        found = tuple(p for p in self.params(w) if row.has(self.needs(w, p)))
        return replace(self, params=functools.partial(_given, found))


def _given(found: tuple[Params, ...], w: Workload) -> tuple[Params, ...]:
    return found


def fitting(variants: Mapping[str, Variant], w: Workload, row: Backend) -> dict[str, Variant]:
    """The variants that have parameters for `w` on a backend, with those alone."""
    found = {name: variant.on(w, row) for name, variant in variants.items()}
    return {name: variant for name, variant in found.items() if variant.params(w)}


def _no_variables(w: Workload) -> tuple[Variable, ...]:
    return ()


def _no_formats(w: Workload) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Op:
    """One op. All but `name` are functions of the workload.

    spec        what it computes, as the dataclass that a workload is read as
    variants    the variants that have parameters for its shape; KernelError or FormatError if there can be none
    operands    the kernel's arguments in slot order, outputs first
    heuristic_baselines  each variant that is plain loops, opts None: tinygrad's heuristic is judged by these, and a
                workload that is not tuned has the first of them
    default_schedules    the hand-chosen schedules for a backend ("CUDA", "CPU:X86"), best first; the last applies
                everywhere
    module      that it is defined in: what that imports decides what is computed (`kernels.ops.digest`)
    products    multiplications of one launch
    variables   tinygrad Variables, if any
    formats     GGML formats that are unpacked, if any
    nbytes      bytes that one launch must move at least; None: every operand once
    tolerances  of variants that compute with less than float32, by (variant, dtype of the output)
    """

    name: str
    spec: type[Spec]
    variants: Callable[[Workload], dict[str, Variant]]
    operands: Callable[[Workload], tuple[Operand, ...]]
    heuristic_baselines: Callable[[Workload], tuple[Schedule, ...]]
    default_schedules: Callable[[Workload, str], tuple[Schedule, ...]]
    module: str
    products: Callable[[Workload], int]
    variables: Callable[[Workload], tuple[Variable, ...]] = _no_variables
    formats: Callable[[Workload], tuple[str, ...]] = _no_formats
    nbytes: Callable[[Workload], int] | None = None
    tolerances: Mapping[tuple[str, str], float] = field(default_factory=dict)
