"""Checks that a plan's values have the shapes of the operands that they are used as."""

from __future__ import annotations

import math

from db.records import Workload
from kernels.models.plan import Columns, Pass, PlanError, Source, Value
from kernels.ops.op import OUT, UPDATE, Operand
from kernels.ops.registry import operands

X_DTYPE = "float32"  # of activations


def check_shapes(found: Pass, m: int, x_dtype: str) -> None:
    """Checks a pass over m tokens. Raises PlanError if a value has another number of items or another dtype than the
    operand that it is used as, and for an operand that is neither an input nor read from the file."""
    known: dict[Value, Operand] = {}
    of_workload: dict[Workload, tuple[Operand, ...]] = {}
    for launch in found.launches:
        w = launch.workload(m, x_dtype)
        if w not in of_workload:
            of_workload[w] = operands(w)
        read = {part for r in launch.reads for part in r.operand.split("+")}
        for o in of_workload[w]:
            if o.role == OUT or o.name.partition(".")[0] in read:
                continue
            if o.name not in launch.inputs:
                raise PlanError(f"{launch}: the operand {o.name} is missing")
            _check(known, launch.inputs[o.name], o, m, str(launch))
        written = [o for o in of_workload[w] if o.role in (OUT, UPDATE)]
        for value, o in zip(launch.outputs, written, strict=True):
            if value.columns is not None and m * value.columns != math.prod(o.shape):
                raise PlanError(f"{launch}: {value} has {value.columns} columns, {o.name} the shape {o.shape}")
            known[value] = o


def state(found: Pass, x_dtype: str) -> dict[str, Operand]:
    """The operands that the persistent inputs of a pass over one token are used as, by the inputs' labels."""
    return {
        value.label: o
        for launch in found.launches
        for o in operands(launch.workload(1, x_dtype))
        if o.role == UPDATE
        for value in launch.inputs[o.name]
        if isinstance(value, Value)
    }


def _check(known: dict[Value, Operand], sources: tuple[Source, ...], o: Operand, m: int, who: str) -> None:
    items = 0
    for source in sources:
        value = source.value if isinstance(source, Columns) else source
        made = known.setdefault(value, o)  # an input of the pass gets the shape of its first use
        if made.dtype != o.dtype:
            raise PlanError(f"{who}: {value} is {made.dtype}, {o.name} must be {o.dtype}")
        items += m * source.columns if isinstance(source, Columns) else math.prod(made.shape)
    if items != math.prod(o.shape):
        said = " + ".join(map(str, sources))
        raise PlanError(f"{who}: {o.name} has the shape {o.shape}, {said} has {items} items")
