"""`expert_places` and `expert_tiles`: the pairs (token, slot) sorted by expert, so that the pairs of an expert share
its weight.

The number of a pair is token * used + slot. Pairs are put into tiles of `size` places, where a tile has pairs of one
expert only. If the experts before expert e have c pairs, the pairs of e begin at tile c // size + e. So there is room
for all pairs, whatever was chosen; some tiles stay empty, and others do not become full.

    expert_places   places int32 [m * used] from ids int32 [m * used]: the place of each pair, tile * size + place in
    tile expert_tiles    tiles int32 [tiles * size] from places: the pair at each place, -1 for none. The pairs of a
    tile are in
                    its first places

The kernels need no atomics: each pair is compared with all others, and each place with all pairs. Loops for opts to
schedule: 0 the results (pairs or places), 1 the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.ops.experts import defaults
from kernels.ops.experts.spec import Chosen, ExpertPlaces, ExpertProduct, ExpertTiles
from kernels.ops.kit.loops import loop, reduce_add, reduce_max
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant

_MANY_TOKENS = 256


@dataclass(frozen=True)
class Tiles:
    """How pairs are sorted: `tokens` tokens use `used` of `experts` each, and their pairs go into `count` tiles of
    `size`."""

    tokens: int
    experts: int
    used: int

    @property
    def size(self) -> int:
        """Places of a tile. It depends on the number of tokens only. In a larger tile more pairs share what is read of
        a weight, but more places stay empty."""
        return 32 if self.tokens >= _MANY_TOKENS else 16

    @property
    def pairs(self) -> int:
        return self.tokens * self.used

    @property
    def count(self) -> int:
        return self.pairs // self.size + self.experts

    @staticmethod
    def of(w: Workload) -> Tiles:
        """The tiles of a workload. Raises KernelError for numbers without kernels."""
        s = ExpertProduct.from_workload(w) if w.op == ExpertProduct.op else Chosen.from_workload(w)
        return Tiles(w.m, s.experts, s.used)


def _places(w: Workload, params: Params, args: Args, device: str) -> UOp:
    t = Tiles.of(w)
    pair, other = UOp.range(t.pairs, 0), loop(t.pairs, 1)
    expert, its = args["ids"][pair], args["ids"][other]
    below = reduce_add((its < expert).cast(dtypes.int32), other)
    ahead = reduce_add((its.eq(expert) & (other < pair)).cast(dtypes.int32), other)
    return args["places"][pair].store((below // t.size + expert) * t.size + ahead).end(pair)


def _tiles(w: Workload, params: Params, args: Args, device: str) -> UOp:
    t = Tiles.of(w)
    place, pair = UOp.range(t.count * t.size, 0), loop(t.pairs, 1)
    here = args["places"][pair].eq(place.cast(dtypes.int32))
    found = reduce_max(here.where(pair.cast(dtypes.int32), -1), pair)
    return args["tiles"][place].store(found).end(place)


def _op(
    spec: type[Chosen],
    build: Callable[[Workload, Params, Args, str], UOp],
    out: str,
    given: str,
    size: Callable[[Tiles], int],
) -> Op:
    """An op that computes `out` [size] from `given` [m * used]."""

    def variants(w: Workload) -> dict[str, Variant]:
        Tiles.of(w)
        return {"plain": Variant(build, lambda w: ({},))}

    def operands(w: Workload) -> tuple[Operand, ...]:
        t, int32 = Tiles.of(w), DTYPES["int32"]
        return Operand(out, (size(t),), int32, OUT), Operand(given, (t.pairs,), int32, INPUT)

    return Op(
        spec=spec,
        variants=variants,
        operands=operands,
        default_schedules=defaults.sorting,
        module=__name__,
        products=lambda w: size(t := Tiles.of(w)) * t.pairs,
    )


expert_places = _op(ExpertPlaces, _places, "places", "ids", lambda t: t.pairs)
expert_tiles = _op(ExpertTiles, _tiles, "tiles", "places", lambda t: t.count * t.size)
