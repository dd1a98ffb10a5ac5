"""The hand-chosen schedules of attention, and of `flash_combine`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.loops import loops_params
from kernels.ops.attention.workgroup import MAX_QUERIES, single_thread_params
from kernels.ops.kit.nearest import nearest
from kernels.ops.op import Params, Variant

MOST_AT_ONCE = 32  # runs whose loads a thread of flash_combine can have under way


def heuristic_baselines(a: Attention) -> tuple[Schedule, ...]:
    return (Schedule("plain", nearest(loops_params(a), columns=1, rows=16), None),)


def _queries(a: Attention) -> dict[str, int]:
    """The queries of a workgroup: as many heads of a group as possible, then tokens of a prompt."""
    return {"heads": MAX_QUERIES, "tokens": MAX_QUERIES // min(a.group, MAX_QUERIES)} if a.prefill else {"heads": 7}


def _single_thread(a: Attention, threads: int) -> Schedule:
    tile = 64 if a.prefill else 32
    return Schedule("solo", nearest(single_thread_params(a), **_queries(a), threads=threads, tile=tile), ())


def _workgroup(a: Attention, params: tuple[Params, ...]) -> Schedule:
    """Each thread has one position of a tile, and columns of its own in the sums. All heads of a group are taken
    together as long as they fit in local memory."""
    return Schedule("team", nearest(params, **_queries(a), threads=128, tile=128, ways=8), ())


def _warp(a: Attention, params: tuple[Params, ...], fitted: bool) -> Schedule:
    """A lane has 8 columns, so that a warp reads whole rows; with several warps some compute while others wait. Heads
    share what is read, but the wider they are the fewer fit in the registers of a thread. fitted: take the values that
    were fastest on an H100."""
    wanted = {"heads": 4, "warps": 4, "rows": 2}
    if a.prefill:
        wanted |= _queries(a)
    elif fitted:
        heads, warps, rows = (4, 8, 2) if a.head_dim <= 64 else (2, 4, 2) if a.head_dim <= 256 else (2, 2, 1)
        wanted = {"heads": heads, "warps": warps, "rows": rows}
    return Schedule("warp", nearest(params, **wanted, width=-(-a.head_dim // 8)), ())


def default_schedules(w: Workload, a: Attention, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """Warps come first where there are shuffles, then a workgroup where there is local memory, then the threads of a
    CPU. A single thread comes last, since it applies everywhere."""
    row = backends.find(device)
    found = []
    if "warp" in variants:
        found.append(_warp(a, variants["warp"].params(w), row.fitted))
    if "team" in variants:
        found.append(_workgroup(a, variants["team"].params(w)))
    if row.host:
        found.append(_single_thread(a, 4 if a.seen >= 512 and not a.prefill else 1))
    return tuple(dict.fromkeys([*found, _single_thread(a, 1)]))


def flash_combine(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU a thread computes a column, and has the loads of up to MOST_AT_ONCE runs under way at once. On a CPU
    several columns fill a vector register. The last schedule has no opts and applies everywhere."""
    found: list[tuple[Opt, ...]] = []
    if not backends.find(device).threads:
        found = [(Opt("UPCAST", None, size, "1"),) for size in (8, 4)]
    else:
        threads: list[tuple[Opt, ...]] = [(Opt("LOCAL", None, size, "1"),) for size in (64, 32, 16, 8)]
        if 1 < w.k <= MOST_AT_ONCE:
            at_once = Opt("UNROLL", None, 0, "2"), Opt("UNROLL", None, 0, "3")
            found = [(*opts, *at_once) for opts in threads]
        found += threads
    return (*(Schedule("plain", (), opts) for opts in found), Schedule("plain", (), ()))
