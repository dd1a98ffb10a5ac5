"""From a header to the distinct kernels that its model launches, with how often a token launches each.

Reads names, shapes and formats only. Which of these kernels exist, and how fast they are, is for others to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.architectures import LINEARS, LOOKUPS, OUTPUT, TOKEN_EMBEDDING
from autotune.header import Header, TensorInfo
from db.codec import workload_digest, workload_to_json
from db.records import M_BUCKETS, Workload
from kernels.formats import FORMATS

X_DTYPES = ("float32", "float16")
NAMES_IN_A_NOTE = 4


@dataclass(frozen=True)
class ModelWorkload:
    """One kernel of a model. `count` is its launches in one pass over the model (a token, where m = 1), one for each
    of `tensors`; `nbytes` are the weight's bytes that one launch reads."""

    workload: Workload
    count: int
    tensors: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True)
class ModelPlan:
    """A model's distinct workloads, those that read most bytes a token first; `notes` say what was left out or
    guessed, for a person to read."""

    architecture: str
    workloads: tuple[ModelWorkload, ...]
    notes: tuple[str, ...]


def workloads(header: Header, m: Sequence[int] = (1,), x_dtype: str = "float32") -> ModelPlan:
    """The linears of a model for each token bucket in m, equal ones (format, n, k, m) taken together.

    Weights are W[n, k]; activations x[m, k] and results are of x_dtype, as `kernels.linear` has them. Raises
    ValueError for an m that is no bucket or an unknown x_dtype. An unknown architecture is no error: all its 2-D
    weights are taken, and a note says so.
    """
    if not m or (unknown := [value for value in m if value not in M_BUCKETS]):
        buckets = ", ".join(map(str, M_BUCKETS))
        raise ValueError(f"m: {unknown if m else 'nothing'} is not a token bucket; there are {buckets}")
    if x_dtype not in X_DTYPES:
        raise ValueError(f"x_dtype: {x_dtype!r} is not supported; there are {', '.join(X_DTYPES)}")
    linears, notes = _linears(header)
    groups: dict[tuple[str, int, int], list[TensorInfo]] = {}
    for tensor in linears:
        n, k = tensor.shape
        groups.setdefault((tensor.format, n, k), []).append(tensor)
    found = [
        ModelWorkload(
            Workload("linear", format_, n, k, bucket, x_dtype=x_dtype, out_dtype=x_dtype),
            len(tensors),
            tuple(t.name for t in tensors),
            tensors[0].nbytes,
        )
        for (format_, n, k), tensors in groups.items()
        for bucket in sorted(set(m))
    ]
    found.sort(key=_by_bytes)
    if missing := sorted({format_ for format_, _, _ in groups} - FORMATS.keys()):
        notes.append(f"no kernels yet for the format{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return ModelPlan(header.architecture, tuple(found), tuple(notes))


def plan_to_json(plan: ModelPlan) -> list[dict[str, Any]]:
    """One object a workload, in the plan's order: the workload's own fields and its digest, how often and by which
    tensors a token launches it, and the weight bytes of one launch."""
    return [
        {
            **workload_to_json(w.workload),
            "count": w.count,
            "nbytes": w.nbytes,
            "tensors": list(w.tensors),
            "digest": workload_digest(w.workload),
        }
        for w in plan.workloads
    ]


def _by_bytes(found: ModelWorkload) -> tuple[int, str, int, int, int]:
    w = found.workload
    return -found.count * found.nbytes, w.format, w.n, w.k, w.m


def _linears(header: Header) -> tuple[list[TensorInfo], list[str]]:
    """The 2-D weights that are multiplied, in the file's order, and notes on the rest."""
    tied = all(t.name != OUTPUT for t in header.tensors)
    names = LINEARS.get(header.architecture)
    pattern = re.compile("|".join(re.escape(name).replace(r"\{i\}", r"\d+") for name in names)) if names else None
    linears, stacked, other = [], [], []
    for tensor in header.tensors:
        if len(tensor.shape) == 1 or not tensor.name.endswith(".weight"):
            continue
        if len(tensor.shape) > 2:
            stacked.append(tensor.name)
        elif tensor.name in LOOKUPS:
            if tied and tensor.name == TOKEN_EMBEDDING:
                linears.append(tensor)
        elif pattern is None or pattern.fullmatch(tensor.name):
            linears.append(tensor)
        else:
            other.append(tensor.name)
    notes = []
    if pattern is None:
        notes.append(f"the architecture {header.architecture!r} is unknown: every 2-D weight is taken for a linear")
    if stacked:
        notes.append(f"left out, no kernels yet for stacked (expert) weights: {_names(stacked)}")
    if other:
        notes.append(f"left out, not a linear of {header.architecture}: {_names(other)}")
    return linears, notes


def _names(names: list[str]) -> str:
    more = len(names) - NAMES_IN_A_NOTE
    return ", ".join(names[:NAMES_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")
