"""The hand-chosen schedules of attention by backend class."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Schedule, Workload
from kernels import backends
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.loops import plain_params
from kernels.ops.attention.workgroup import MAX_QUERIES, solo_params
from kernels.ops.op import Params, Variant


def _near(params: tuple[Params, ...], **wanted: int) -> tuple[tuple[str, int], ...]:
    """The parameters nearest to `wanted`, whose names come in order of importance."""
    return tuple(sorted(min(params, key=lambda p: [abs(p[name] - value) for name, value in wanted.items()]).items()))


def heuristic(a: Attention) -> tuple[Schedule, ...]:
    return (Schedule("plain", _near(plain_params(a), columns=1, rows=16), None),)


def _queries(a: Attention) -> dict[str, int]:
    """As many as can be taken at once: the heads of a group, then tokens."""
    return {"heads": MAX_QUERIES, "tokens": MAX_QUERIES // min(a.group, MAX_QUERIES)} if a.many else {"heads": 7}


def _solo(a: Attention, threads: int) -> Schedule:
    tile = 64 if a.many else 32
    return Schedule("solo", _near(solo_params(a), **_queries(a), threads=threads, tile=tile), ())


def _team(a: Attention, params: tuple[Params, ...]) -> Schedule:
    """Every thread a position and, in the sums, columns of its own; all heads of a group while memory lasts."""
    return Schedule("team", _near(params, **_queries(a), threads=128, tile=128, ways=8), ())


def _warp(a: Attention, params: tuple[Params, ...], fitted: bool) -> Schedule:
    """A lane for every 8 columns, so that a warp reads whole rows; warps hide each other's waiting. Heads share the
    rows, but the wider they are the fewer fit a thread's registers: measured on an H100."""
    wanted = {"heads": 4, "warps": 4, "rows": 2}
    if a.many:
        wanted |= _queries(a)
    elif fitted:
        heads, warps, rows = (4, 8, 2) if a.head_dim <= 64 else (2, 4, 2) if a.head_dim <= 256 else (2, 2, 1)
        wanted = {"heads": heads, "warps": warps, "rows": rows}
    return Schedule("warp", _near(params, **wanted, width=-(-a.head_dim // 8)), ())


def choices(w: Workload, a: Attention, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """Best first: warps where there are shuffles, a workgroup where there is local memory, else threads of a CPU. One
    thread applies everywhere. variants: those that the backend has parameters for."""
    row = backends.find(device)
    found = []
    if "warp" in variants:
        found.append(_warp(a, variants["warp"].params(w), row.fitted))
    if "team" in variants:
        found.append(_team(a, variants["team"].params(w)))
    if row.host:
        found.append(_solo(a, 4 if a.seen >= 512 and not a.many else 1))
    return tuple(dict.fromkeys([*found, _solo(a, 1)]))
