"""The slow and obvious truth of every op, in float64 with numpy. Shares no code with the kernels that it judges.

One function an op: workload, random generator -> `Case`. Not for run time: importing gguf is slow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from db.records import Workload
from kernels.references.attention import flash, flash_combine, mla
from kernels.references.case import Case, InputsError
from kernels.references.experts import expert_linear, expert_places, expert_product, expert_sum, expert_tiles
from kernels.references.gated import gate_up, head_linear, rmsnorm_linear
from kernels.references.linear import linear
from kernels.references.rope import mla_cache_store, rope_cache_store
from kernels.references.small import argmax, embed, rmsnorm
from kernels.references.topk import topk

_REFERENCES: dict[str, Callable[[Workload, np.random.Generator], Case]] = {
    "linear": linear,
    "rmsnorm_linear": rmsnorm_linear,
    "gate_up": gate_up,
    "expert_linear": expert_linear,
    "expert_places": expert_places,
    "expert_tiles": expert_tiles,
    "expert_product": expert_product,
    "expert_sum": expert_sum,
    "head_linear": head_linear,
    "topk": topk,
    "rope_cache_store": rope_cache_store,
    "flash_decode": flash,
    "flash_prefill": flash,
    "flash_combine": flash_combine,
    "mla_cache_store": mla_cache_store,
    "mla_decode": mla,
    "mla_prefill": mla,
    "rmsnorm": rmsnorm,
    "rmsnorm_add": rmsnorm,
    "embed": embed,
    "argmax": argmax,
}


def make_case(w: Workload, seed: int = 0) -> Case:
    """Operands of a workload and its true outputs; equal for equal arguments. Raises InputsError for an op or dtype
    without a reference, FormatError for a k that is not whole blocks."""
    if w.op not in _REFERENCES:
        raise InputsError(f"no inputs for the op {w.op!r}; there are {', '.join(_REFERENCES)}")
    return _REFERENCES[w.op](w, np.random.default_rng((seed, w.n, w.k, w.m)))
