"""The toolkit that kernels are written with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tinygrad import UOp
from tinygrad.dtype import AddrSpace
from tinygrad.uop.ops import Ops

from autotune.catalogue import catalogue
from db.records import Schedule, Workload
from kernels.ops.kit.allot import FIRST_SLOT
from kernels.ops.kit.nearest import nearest
from kernels.ops.registry import OPS, body, variants
from kernels.serve.sink import placeholders


def kernels(op: str) -> Iterator[UOp]:
    """A kernel of each variant and kind of parameters of an op: the first and the last that it can be built with."""
    seen = set()
    for w in catalogue():
        for name, variant in variants(w, "CUDA").items() if w.op == op else ():
            if (name, w.m) not in seen:
                seen.add((name, w.m))
                yield from (built(w, name, params) for params in (variant.params(w)[0], variant.params(w)[-1]))


def built(w: Workload, variant: str, params: dict[str, int]) -> UOp:
    return body(w, Schedule(variant, tuple(sorted(params.items())), ()), placeholders(w), "CUDA")


@pytest.mark.parametrize("op", OPS)
def test_arrays_and_loops_of_a_kernel_are_told_apart(op: str) -> None:
    for kernel in kernels(op):
        nodes = kernel.toposort()
        arrays = [u for u in nodes if u.op is Ops.BUFFER and u.addrspace in (AddrSpace.LOCAL, AddrSpace.REG)]
        slots = [u.arg.slot for u in arrays]
        assert len(set(slots)) == len(slots)
        assert min(slots, default=FIRST_SLOT) >= FIRST_SLOT  # below are tinygrad's own
        numbers = [u.arg[0] for u in nodes if u.op is Ops.RANGE]
        assert len(set(numbers)) == len(numbers), kernel.arg.name


def test_the_nearest_parameters_are_found_in_the_order_of_importance() -> None:
    params = [{"threads": t, "words": w} for t, w in ((32, 4), (64, 1), (128, 8))]
    assert nearest(params, threads=60, words=8) == (("threads", 64), ("words", 1))
    assert nearest(params, words=8, threads=60) == (("threads", 128), ("words", 8))
    assert nearest(params, threads=48, words=1) == (("threads", 64), ("words", 1))  # equally near by threads
    assert nearest([{"words": 2}], threads=1, words=1) == (("words", 2),)
