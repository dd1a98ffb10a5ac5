"""The variants of an op that is an `Attention`, and their hand-chosen schedules by backend class."""

from __future__ import annotations

from collections.abc import Callable

from db.records import Schedule, Workload
from kernels.op import Op, Operand, Params, Variant
from kernels.ops import attend
from kernels.ops.attend import Attention
from kernels.ops.attend_plain import plain, plain_params
from kernels.ops.attend_team import MAX_QUERIES, solo, solo_params, team, team_params
from kernels.ops.attend_warp import SHUFFLES, warp, warp_params
from kernels.ops.team import LOCAL_DEVICES

_SOURCES = ("attend", "attend_plain", "attend_team", "attend_warp", "attend_choices", "gated", "team")


def attention_op(
    name: str,
    build: Callable[[Workload], Attention],
    inputs: Callable[[Workload, Attention], tuple[Operand, ...]],
    row_nbytes: Callable[[Attention], int],
    *modules: str,
) -> Op:
    """An op from what its attention is. inputs: its operands after those written; row_nbytes: of a position.
    The files of its name and `modules` decide what it computes, beside those that all share."""

    def known(w: Workload) -> Attention:
        return attend.check(w, build(w))

    def variants(w: Workload) -> dict[str, Variant]:
        known(w)
        return {
            "plain": Variant(lambda w, p, args, _: plain(w, build(w), p, args), lambda w: plain_params(build(w))),
            "solo": Variant(
                lambda w, p, args, _: solo(w, build(w), p, args),
                lambda w: solo_params(build(w)),
                schedulable=False,
            ),
            "team": Variant(
                lambda w, p, args, _: team(w, build(w), p, args),
                lambda w: team_params(build(w)),
                LOCAL_DEVICES,
                schedulable=False,
            ),
            "warp": Variant(
                lambda w, p, args, device: warp(w, build(w), p, args, device),
                lambda w: warp_params(build(w)),
                frozenset(SHUFFLES),
                schedulable=False,
            ),
        }

    return Op(
        name=name,
        variants=variants,
        operands=lambda w: (*attend.outputs(w, known(w)), *inputs(w, known(w))),
        plain=lambda w: _plain(known(w)),
        choices=lambda w, device: _choices(known(w), device),
        sources=lambda w: (*(f"ops/{f}.py" for f in (*_SOURCES, name, *modules)), "ops/lanes.py", "unpack/__init__.py"),
        products=lambda w: w.m * known(w).heads * known(w).seen * (known(w).head_dim + known(w).value_dim),
        variables=lambda w: (known(w).variable,),
        nbytes=lambda w: known(w).seen * row_nbytes(known(w)) + 4 * w.n * known(w).splits,
    )


def _near(params: tuple[Params, ...], **wanted: int) -> tuple[tuple[str, int], ...]:
    """The parameters nearest to `wanted`, whose names come in order of importance."""
    return tuple(sorted(min(params, key=lambda p: [abs(p[name] - value) for name, value in wanted.items()]).items()))


def _plain(a: Attention) -> tuple[Schedule, ...]:
    return (Schedule("plain", _near(plain_params(a), columns=1, rows=16), None),)


def _queries(a: Attention) -> dict[str, int]:
    """As many as can be taken at once: the heads of a group, then tokens."""
    return {"heads": MAX_QUERIES, "tokens": MAX_QUERIES // min(a.group, MAX_QUERIES)} if a.many else {"heads": 7}


def _solo(a: Attention, threads: int) -> Schedule:
    tile = 64 if a.many else 32
    return Schedule("solo", _near(solo_params(a), **_queries(a), threads=threads, tile=tile), ())


def _team(a: Attention) -> Schedule:
    """Every thread a position and, in the sums, columns of its own; all heads of a group while memory lasts."""
    return Schedule("team", _near(team_params(a), **_queries(a), threads=128, tile=128, ways=8), ())


def _warp(a: Attention, device: str) -> Schedule:
    """A lane for every 8 columns, so that a warp reads whole rows; warps hide each other's waiting. Heads share the
    rows, but the wider they are the fewer fit a thread's registers: measured on an H100."""
    wanted = {"heads": 4, "warps": 4, "rows": 2}
    if a.many:
        wanted |= _queries(a)
    elif device != "METAL":
        heads, warps, rows = (4, 8, 2) if a.head_dim <= 64 else (2, 4, 2) if a.head_dim <= 256 else (2, 2, 1)
        wanted = {"heads": heads, "warps": warps, "rows": rows}
    return Schedule("warp", _near(warp_params(a), **wanted, width=-(-a.head_dim // 8)), ())


def _choices(a: Attention, device: str) -> tuple[Schedule, ...]:
    """Best first: warps where there are shuffles, a workgroup where there is local memory, else threads of a CPU. One
    thread applies everywhere."""
    base = device.split(":")[0]
    found = []
    if device in SHUFFLES and warp_params(a):
        found.append(_warp(a, device))
    if device in LOCAL_DEVICES and team_params(a):
        found.append(_team(a))
    if base == "CPU":
        found.append(_solo(a, 4 if a.seen >= 512 and not a.many else 1))
    return tuple(dict.fromkeys([*found, _solo(a, 1)]))
