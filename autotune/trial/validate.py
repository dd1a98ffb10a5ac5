"""Is this output right? Arithmetic on arrays, nothing else: launching and reading back is the runner's work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import AutotuneError
from db.records import Outcome
from kernels.ops.case import Case, Truth
from kernels.ops.op import DTYPES, UPDATE, Operand

CANARY_NBYTES = 4096
_CANARY = 0xA5
# a NaN whose payload no arithmetic produces, so that "never written" and "computed a NaN" can be told apart
_POISON = {
    "float32": np.uint32(0x7FC5A5A5),
    "float16": np.uint16(0x7E5A),
    "bfloat16": np.uint16(0x7FDA),
    "int32": np.uint32(0x7FC5A5A5),
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_INTEGERS = ("int32",)
# One element may be off by this many tolerances, about the largest of 10^6 normal errors, or by ELEMENT_FLOOR if that
# is more: the inputs of a real model have outliers, of which the rounding of a single product shows. One product left
# out of k shows as about 1 / sqrt(k), which is 8e-3 for k = 14336.
ELEMENT_SLACK, ELEMENT_FLOOR = 8.0, 1e-3
_SLAB = 1 << 22
_PART = 1 << 15
_BFLOAT16_MAX = 3.3895313892515355e38
_Floats = npt.NDArray[np.float64]


class ValidateError(AutotuneError, ValueError):
    """The arrays to be judged do not belong together."""


@dataclass(frozen=True)
class Verdict:
    """error: ||out - ref|| / ||ref||. max_element_error: the largest |out - ref| of one element, in units of what its
    row's norm makes typical. Both are None if nothing could be judged; `reason` says why an outcome is not OK."""

    outcome: Outcome
    error: float | None
    max_element_error: float | None
    tolerance: float
    reason: str = ""


def _poison(dtype: str) -> Any:
    if dtype not in _POISON:
        raise ValidateError(f"no poison for an output of {dtype!r}; known are {', '.join(_POISON)}")
    return _POISON[dtype]


def poisoned(elements: int, dtype: str) -> npt.NDArray[np.uint8]:
    """The bytes of an output before a launch: `elements` NaNs, then CANARY_NBYTES that no kernel may touch."""
    body = np.full(elements, _poison(dtype)).view(np.uint8)
    return np.concatenate([body, np.full(CANARY_NBYTES, _CANARY, np.uint8)])


def dtype_name(o: Operand) -> str:
    """The dtype of an output as numpy and `judge` name it."""
    return _DTYPE_NAMES[o.dtype]


def initial(o: Operand, case: Case) -> npt.NDArray[np.uint8]:
    """The bytes of an output before a launch: poison, or the content that is updated, then the canaries."""
    truth = case.truths[o.name]
    data = poisoned(truth.m * truth.n, dtype_name(o))
    if o.role == UPDATE:
        data[:-CANARY_NBYTES] = np.ascontiguousarray(case.arrays[o.name]).reshape(-1).view(np.uint8)
    return data


def decode(bits: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float64]:
    """Raw output words as numbers."""
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(dtype).astype(np.float64)


def _rounding(reference: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.float64]:
    """Half a unit in the last place of the output's type: what storing even the exact result may cost."""
    if dtype in _INTEGERS:
        return np.zeros_like(reference)
    ulps = 1 << 16 if dtype == "bfloat16" else 1
    kind = np.float32 if dtype == "bfloat16" else np.dtype(dtype).type
    limit = float(np.finfo(kind).max)
    spacing: npt.NDArray[np.float64] = np.spacing(np.minimum(np.abs(reference), limit).astype(kind)).astype(np.float64)
    return spacing * (ulps / 2)


def judge(
    data: npt.NDArray[np.uint8],
    dtype: str,
    truth: Truth,
    tolerance: float,
    before: npt.NDArray[np.uint8] | None = None,
) -> Verdict:
    """The verdict on `data`, the bytes read back from a buffer that held `poisoned(m * n, dtype)` before the launch.

    before: what the buffer held instead, if the launch updates it. Parts that had to stay as they were, and did, are
    right at once, and count nothing in the error of the others.

    Wrong are: a changed canary, an element never written, NaN or infinity where the reference has a number that the
    type can hold, an error above `tolerance`, an element off by more than ELEMENT_SLACK tolerances and ELEMENT_FLOOR.
    Raises ValidateError if `data` has another size.
    """
    poison = _poison(dtype)
    elements = truth.m * truth.n
    if data.dtype != np.uint8 or data.nbytes != elements * poison.itemsize + CANARY_NBYTES:
        raise ValidateError(f"{data.nbytes} bytes of {data.dtype} are no {dtype} output of {elements} elements")

    def wrong(reason: str, error: float | None = None, element: float | None = None) -> Verdict:
        return Verdict(Outcome.WRONG_RESULT, error, element, tolerance, reason)

    bits = data[:-CANARY_NBYTES].view(poison.dtype).reshape(truth.m, truth.n)
    if touched := np.count_nonzero(data[-CANARY_NBYTES:] != _CANARY):
        return wrong(f"wrote past the output's end: {touched} canary bytes changed")
    if (unwritten := bits == poison).any():
        return wrong(f"{np.count_nonzero(unwritten)} of {elements} elements never written, first {_where(unwritten)}")
    squares = norm = element = 0.0
    at = (0, 0)
    old = None if before is None else before[:-CANARY_NBYTES].view(poison.dtype).reshape(bits.shape)
    step = max(1, (_SLAB if old is None else _PART) // truth.n)
    for start in range(0, truth.m, step):  # in slabs: the whole in float64 can be gigabytes
        part = slice(start, start + step)
        if old is not None and _kept(bits[part], old[part], dtype, truth.reference[part]):
            continue
        values = decode(bits[part], dtype) if truth.read is None else truth.read(bits[part], part)
        slab = _judge_slab(values, dtype, *truth.rows(start, start + step))
        if slab.bad is not None:
            return wrong(f"NaN or infinity, first at {(slab.bad[0] + start, slab.bad[1])}")
        squares, norm = squares + slab.squares, norm + slab.norm
        if slab.element > element:
            element, at = slab.element, (slab.at[0] + start, slab.at[1])
    error = float(np.sqrt(squares / norm)) if norm else float(np.sqrt(squares))
    if not error <= tolerance:
        return wrong(f"relative error {error:.2e} above {tolerance:.0e}", error, element)
    if not element <= max(tolerance * ELEMENT_SLACK, ELEMENT_FLOOR):
        return wrong(f"element {at} is off by {element:.2e} of what is typical of its row", error, element)
    return Verdict(Outcome.OK, error, element, tolerance)


def _kept(bits: npt.NDArray[Any], old: npt.NDArray[Any], dtype: str, reference: _Floats) -> bool:
    """Whether a part did not change, and should not have."""
    same = reference.shape == bits.shape and np.array_equal(bits, old)
    return same and np.array_equal(decode(old, dtype), reference)


@dataclass(frozen=True)
class _Slab:
    """Sums of squares of error and reference, the worst element and where it is; `bad`: where the first NaN is."""

    squares: float = 0.0
    norm: float = 0.0
    element: float = 0.0
    at: tuple[int, int] = (0, 0)
    bad: tuple[int, int] | None = None


def _judge_slab(out: _Floats, dtype: str, reference: _Floats, scale: _Floats) -> _Slab:
    largest = _BFLOAT16_MAX if dtype == "bfloat16" else np.inf if dtype in _INTEGERS else float(np.finfo(dtype).max)
    # a number too large for the type has to come out as infinity: no error, no part of the norm
    overflow = (np.abs(reference) > largest) & np.isinf(out) & (np.sign(out) == np.sign(reference))
    if (bad := ~np.isfinite(out) & ~overflow).any():
        return _Slab(bad=_where(bad))
    expected = np.where(overflow, 0.0, reference)
    difference = np.abs(np.where(overflow, 0.0, out) - expected)
    excess = np.maximum(difference - _rounding(expected, dtype), 0.0)
    relative = np.divide(excess, scale, out=np.where(excess > 0, np.inf, 0.0), where=scale > 0)
    at = np.unravel_index(int(relative.argmax()), relative.shape)
    squares, norm = float(np.square(difference).sum()), float(np.square(expected).sum())
    return _Slab(squares, norm, float(relative[at]), (int(at[0]), int(at[1])))


def _where(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    row, column = np.unravel_index(int(mask.argmax()), mask.shape)
    return int(row), int(column)
