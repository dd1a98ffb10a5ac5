"""What an op is: its variants, its operands, and what is known about it before it is tuned. No kernels are here.

Every op of `kernels.ops` is one `Op`. The registry, the tuner, the validator and the lookup see nothing else of an op.
So a new op is one module, one reference (`kernels.ops.references`) and one line in the registry.
"""

from __future__ import annotations

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

START = "start_pos"
"""The Variable that is the position of the first token of a launch: tinygrad.llm's name for it."""
OUT, UPDATE, WEIGHT, INPUT = "out", "update", "weight", "input"


@dataclass(frozen=True)
class Operand:
    """A kernel argument. The values of `role` are:

    out     the kernel writes all of it and does not read it
    update  the kernel writes a part of it, and the rest keeps its content (a cache of keys)
    weight  the kernel reads it, and it is so large that no processor cache still holds it (weights, a cache of keys)
    input   the kernel reads it, and the launch before has just written it
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
    """A tinygrad Variable that the kernel takes besides its buffers. `tuned` is its value while the kernel is tuned."""

    name: str
    low: int
    high: int
    tuned: int

    @property
    def uop(self) -> UOp:
        """The UOp by which the body of a kernel refers to it."""
        return UOp.variable(self.name, self.low, self.high, param=True)


def _nothing(w: Workload, params: Params) -> Needs:
    return Needs()


@dataclass(frozen=True)
class Variant:
    """One way to write the kernels of an op.

    build        (workload, params, args, device) -> the body of the kernel
    params       (workload) -> the parameters that it can be built with, the default first
    needs        (workload, params) -> what it needs of a backend
    schedulable  False where the variant fixes its own structure and takes no opts
    must         the name of an opt without which its results are wrong ("TC")
    """

    build: Callable[[Workload, Params, Args, str], UOp]
    params: Callable[[Workload], tuple[Params, ...]]
    needs: Callable[[Workload, Params], Needs] = _nothing
    schedulable: bool = True
    must: str | None = None

    def on(self, w: Workload, row: Backend) -> Variant:
        """The same variant, with only those parameters for `w` that fit a backend."""
        found = tuple(p for p in self.params(w) if row.has(self.needs(w, p)))
        return replace(self, params=lambda w: found)


def _loops_without_params(w: Workload) -> tuple[Schedule, ...]:
    return (Schedule("plain", (), None),)


def _no_variables(w: Workload) -> tuple[Variable, ...]:
    return ()


def _no_formats(w: Workload) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Op:
    """One op. All fields but `spec`, `module` and `tolerances` are functions of the workload.

    spec        the dataclass that a workload is read as: what the op computes
    variants    the variants by name; KernelError or FormatError if there is no kernel for the workload
    operands    the kernel's arguments in slot order, outputs first
    heuristic_baselines  each variant that is plain loops, with opts None: tinygrad's heuristic is judged by these, and
                a workload that is not tuned gets the first of them
    default_schedules    (workload, variants, backend) -> the hand-chosen schedules, best first. The variants are those
                that have parameters on the backend ("CUDA", "CPU:X86"); the last schedule applies everywhere
    module      the module that defines the op: its imports decide what is computed (`kernels.ops.digest`)
    products    number of multiplications of one launch
    variables   the tinygrad Variables
    formats     the GGML formats that are unpacked
    nbytes      bytes that one launch must move at least; None: every operand once
    tolerances  limits for variants that compute with less than float32, by (variant, dtype of the output)
    """

    spec: type[Spec]
    variants: Callable[[Workload], dict[str, Variant]]
    operands: Callable[[Workload], tuple[Operand, ...]]
    default_schedules: Callable[[Workload, Mapping[str, Variant], str], tuple[Schedule, ...]]
    module: str
    products: Callable[[Workload], int]
    heuristic_baselines: Callable[[Workload], tuple[Schedule, ...]] = _loops_without_params
    variables: Callable[[Workload], tuple[Variable, ...]] = _no_variables
    formats: Callable[[Workload], tuple[str, ...]] = _no_formats
    nbytes: Callable[[Workload], int] | None = None
    tolerances: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.op
