"""The hand-chosen schedules of the kernels over int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from db.records import Opt, Schedule, Workload
from kernels.formats.tiles import TILE
from kernels.ops.op import WEIGHT, Operand, Variant
from kernels.ops.q8.spec import WORDS, Quantise, spec_of

Schedules = tuple[Schedule, ...]
SLICE_NBYTES = 1 << 16
MOST_SLICES = 64
_LANES = Opt("UPCAST", None, TILE, "1")


def slices(nbytes: int, tiles: int) -> int:
    """How many slices the tiles are cut into: about one for SLICE_NBYTES of weights, a divisor of the tiles."""
    wanted = min(nbytes // SLICE_NBYTES, MOST_SLICES)
    return max((d for d in range(1, wanted + 1) if tiles % d == 0), default=1)


_WORDS = Opt("UPCAST", None, WORDS, "2")


def untuned() -> Schedules:
    """One token at a time, without threads."""
    return (Schedule("tiles", (("tokens", 1),), (_LANES,)),)


def untuned_quantise() -> Schedules:
    return (Schedule("blocks", (), (_WORDS,)),)


def tiles(w: Workload, operands: Sequence[Operand], variants: Mapping[str, Variant]) -> Schedules:
    """Rows in lanes, and the tiles in slices. Several tokens share what is unpacked of the weights."""
    params = tuple(variants["tiles"].params(w)[0].items())
    nbytes = sum(o.nbytes for o in operands if o.role == WEIGHT) * (1 if w.m < 16 else w.m // 8)
    threads = slices(nbytes, -(-w.n // TILE))
    sliced = Schedule("tiles", params, (_LANES, Opt("THREAD", None, threads, "0"))) if threads > 1 else None
    return (*((sliced,) if sliced else ()), Schedule("tiles", params, (_LANES,)), Schedule("tiles", params, ()))


def quantise(w: Workload) -> Schedules:
    """The rows in slices of four: a row takes about a microsecond."""
    rows = w.m * spec_of(Quantise, w).rows
    threads = max(d for d in range(1, min(rows // 4, MOST_SLICES) + 2) if rows % d == 0 and (d == 1 or rows // d >= 4))
    sliced = (Schedule("blocks", (), (_WORDS, Opt("THREAD", None, threads, "0"))),) if threads > 1 else ()
    return (*sliced, Schedule("blocks", (), (_WORDS,)), Schedule("blocks", (), ()))
