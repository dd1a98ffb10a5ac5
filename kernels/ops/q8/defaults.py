"""The hand-chosen parameters of the kernels over int8: how many tokens share what is unpacked, and how many slices."""

from __future__ import annotations

from collections.abc import Sequence

from db.records import Schedule, Workload
from kernels.ops.op import WEIGHT, Operand, Params

Schedules = tuple[Schedule, ...]
_SLICE_NBYTES = 1 << 16
_FEW = 16  # tokens, which cost about as much as one
_SLICE_ROWS = 4  # a row of x is quantised in about a microsecond


def untuned(variant: str, **params: int) -> Schedules:
    """One slice."""
    return (_schedule(variant, {**params, "slices": 1}),)


def _schedule(variant: str, params: Params) -> Schedule:
    return Schedule(variant, tuple(sorted(params.items())), ())


def tiles(w: Workload, operands: Sequence[Operand], params: Sequence[Params]) -> Schedules:
    """About one slice for _SLICE_NBYTES of weights, more for more tokens."""
    nbytes = sum(o.nbytes for o in operands if o.role == WEIGHT)
    return _sliced("tiles", params, nbytes * -(-w.m // _FEW) // _SLICE_NBYTES)


def quantise(params: Sequence[Params]) -> Schedules:
    return _sliced("blocks", params, max(p["slices"] for p in params) // _SLICE_ROWS)


def _sliced(variant: str, params: Sequence[Params], wanted: int) -> Schedules:
    """The most slices up to `wanted`, and the first choice of the other parameters."""
    first = {**params[0], "slices": 0}
    fit = [p for p in params if {**p, "slices": 0} == first and p["slices"] <= max(1, wanted)]
    return (_schedule(variant, max(fit, key=lambda p: p["slices"])),)
