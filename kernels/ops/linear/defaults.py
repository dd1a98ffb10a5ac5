"""Hand-chosen schedules of row kernels, by backend class. Each is legal only where it divides, so every entry is a
list: the first that applies is used. tinygrad's heuristic comes last, it can be 10 times slower."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.formats import get_format
from kernels.ops.kit import warp_sum as lanes
from kernels.ops.linear import tensor_core, warp
from kernels.ops.linear.dot import Rows, chunk_words, is_plain
from kernels.ops.op import Params, Variant

Choices = tuple[Schedule, ...]
Variants = Mapping[str, Variant]


def params_near(w: Workload, variant: Variant, **wanted: int) -> tuple[tuple[str, int], ...]:
    """The variant's parameters nearest to `wanted` among those that it allows for this shape."""
    best = min(
        variant.params(w), key=lambda p: sum(abs(p[name] - value) for name, value in wanted.items() if name in p)
    )
    return tuple(sorted(best.items()))


def heuristic(w: Workload, variants: Variants) -> Choices:
    """Each plainly written variant, one accumulator, scheduled by tinygrad; not tuned is the first of them."""
    words = {"dequant": 1, "factored": 8}
    return tuple(
        Schedule(name, params_near(w, variants[name], words=words[name], lanes=1), None)
        for name in words
        if name in variants
    )


def choices(w: Workload, r: Rows, variants: Variants, device: str) -> Choices:
    """The default schedules on a backend ("CUDA", "CPU:X86"), best first, of the variants that it has parameters for.

    A row is shared: by the lanes of a warp where shuffles are known, else by a workgroup's threads (on an Apple GPU
    GROUPTOP and GROUP gave 70 GB/s where an unscheduled kernel gave 9, and a hand-written one of simdgroups 145). Many
    tokens are first of all for tensor cores.
    """
    row = backends.find(device)
    found = _shuffle(w, r, variants, row.fitted) if row.threads else _vectors(w, r, variants)
    return (*_tiles(r, variants, device), *found)


def _name(r: Rows) -> str:
    return "dequant" if all(map(is_plain, r.formats)) else "factored"


def _vectors(w: Workload, r: Rows, variants: Variants) -> Choices:
    """For a CPU, and what else has no workgroups. One token: eight lanes fill an AVX2 register, four rows share each
    load of x. More: the tokens share a weight."""
    tokens = r.loops[0]
    name = _name(r) if tokens == 1 else "dequant"
    words, lanes = {1: (4, 8), 2: (4, 4), 4: (4, 4)}.get(tokens, (1, 1))
    params = params_near(w, variants[name], words=words, lanes=lanes)
    upcast = () if tokens == 1 else (Opt("UPCAST", None, min(tokens, 8), "0"),)
    upcasts = [Schedule(name, params, (Opt("UPCAST", None, rows, "1"), *upcast)) for rows in (4, 3, 2)]
    return tuple(dict.fromkeys([*upcasts, Schedule(name, params, upcast), Schedule(name, params, ())]))


def _shuffle(w: Workload, r: Rows, variants: Variants, fitted: bool) -> Choices:
    """Warps of a few rows keep a GPU's memory busy without any search. Apple's GPUs hold fewer threads: two simdgroups
    a threadgroup, as llama.cpp's kernels for them have."""
    if (found := variants.get("warp")) is None:
        return _groups(w, r, variants)
    wanted = _warps_as_measured(r, max(p["staged"] for p in found.params(w))) if fitted else _few_warps(r)
    choice = Schedule("warp", params_near(w, found, **wanted), ())
    few = _few_rows(variants["dequant"].params(w)) if _outputs(r) <= 256 and is_plain(r.formats[0]) else ()
    return (*few, choice, *_groups(w, r, variants))


def _warps_as_measured(r: Rows, staged: int) -> dict[str, int]:
    """The parameters of a warp's kernel that an H100 was fastest with. staged: 1 where there is room for it."""
    wide = min(_wide_words(format, r.k, _pair(r)) for format in r.formats)
    if staged:
        return {"rows": _staged_rows(r), "warps": 4, "words": wide, "staged": 1}
    if r.loops[0] == 1:
        return {"rows": 2, "warps": 8, "words": min(wide, 4), "staged": 0}
    return {**_few_warps(r), "warps": 4}


def _few_warps(r: Rows) -> dict[str, int]:
    """The same for GPUs that hold fewer threads than NVIDIA's, or that nothing was measured on."""
    words = min(_words(format, r.k) for format in r.formats)
    return {"rows": _rows(r, words), "warps": 2, "words": words, "staged": 0}


def _few_rows(params: Sequence[Params]) -> Choices:
    """So few that a warp each would leave a GPU idle: many threads share a row."""
    narrow = tuple(sorted(min(params, key=lambda p: p["lanes"]).items()))
    opts = Opt("GROUPTOP", None, 16, "2"), Opt("GROUPTOP", None, 8, "2"), Opt("UNROLL", None, 4, "2")
    return (Schedule("dequant", narrow, opts),)


def _a_word(format: str) -> int:
    """Weights that a step's word brings."""
    return 1 if is_plain(format) else 4 * tensor_core.runs(format)


def _words(format: str, k: int) -> int:
    """So many that a lane has 32 weights a step, or 16 of a format with small blocks, where the next lane's words would
    be too far off; fewer where lanes would be left without any."""
    weights = 16 if get_format(format).block == 32 else 32
    return _most_words(format, k, (4, 2), weights)


def _rows(r: Rows, words: int) -> int:
    """Rows that a warp takes at once, which share the work on x but leave fewer warps; measured on an H100, where it
    makes 1.0 to 1.8 times the speed of one row."""
    if r.n >= 8192:
        return 4
    if _pair(r):
        return 1  # each is as many already
    if r.squares is not None and words > 2:
        return 4  # there is more work on x
    return 2 if _light(r) and r.n >= 2048 else 1


def _outputs(r: Rows) -> int:
    return r.n * math.prod(r.loops)


def _light(r: Rows) -> bool:
    """Whether a step of a row is so little work that a warp takes another."""
    return len(r.formats) > 1 or _a_word(r.formats[0]) < 16


def _pair(r: Rows) -> bool:
    """Whether a row has two weights."""
    return len(r.weights) > 1 and all(weight.stop is None for weight in r.weights)


def _staged_rows(r: Rows) -> int:
    """Rows share the work on x, but each takes registers, and a GPU wants some hundreds of blocks, best of all as many
    as it holds at once."""
    rows = _outputs(r) // r.loops[0]
    if _pair(r):
        return 4 if 8192 <= rows <= 12288 else 2 if rows >= 4096 else 1
    if rows >= 32768:
        return 4
    return 2 if rows >= 2048 and _light(r) else 1


def _wide_words(format: str, k: int, pair: bool) -> int:
    """So many that a lane has 64 weights of superblocks a step, 32 of small blocks or of each of two; fewer where lanes
    would be left without any."""
    weights = 32 if pair or get_format(format).block == 32 else 64
    return _most_words(format, k, (8, 4, 2), weights)


def _most_words(format: str, k: int, sizes: Sequence[int], weights: int) -> int:
    """The first of `sizes` that brings no more than `weights` and leaves each lane a step; 1 if none does."""
    fit = (s for s in sizes if chunk_words(format, k) % s == 0 and s * _a_word(format) <= weights)
    return next((s for s in fit if warp.steps(format, k, s) >= lanes.WARP), 1)


def _groups(w: Workload, r: Rows, variants: Variants) -> Choices:
    """Threads of a workgroup share a row: each takes some of the blocks, then they add up through shared memory. Many
    tokens have parallelism enough without that: a thread takes some of them, so that they share its weights."""
    name = _name(r)
    if r.loops[0] > warp.MAX_TOKENS:
        params = params_near(w, variants["dequant"], words=1, lanes=1)
        shared = Opt("UPCAST", None, 8, "0"), Opt("LOCAL", None, min(r.loops[0] // 8, 4), "0")
        tiles = [(*shared, Opt("LOCAL", None, size, "1")) for size in (16, 8, 4, 2)]
        return tuple(Schedule("dequant", params, opts) for opts in (*tiles, shared, ()))
    params = params_near(w, variants[name], words=4, lanes=1)
    loop = "2"
    groups = [Schedule(name, params, (Opt("GROUPTOP", None, size, loop),)) for size in (32, 16, 8, 4, 2)]
    locals_ = [Schedule(name, params, (Opt("LOCAL", None, size, "1"),)) for size in (32, 8)]
    return (*groups, *locals_, Schedule(name, params, ()))


_MANY_RESULTS = 1 << 20
_BODY = 128  # instructions of tensor cores in a loop's body; with 192 ptxas ran out of an H100's registers


def _tiles(r: Rows, variants: Variants, device: str) -> Choices:
    """Tensor cores: a warp computes up to 4 x 4 of their tiles, so that an operand in a register serves several
    instructions, and up to 4 warps of a block take neighbouring rows, so that they share the inputs' cache lines. Few
    tokens make few warps, unless they are of many experts: these take a tile of rows each, and unroll further, to have
    more loads under way."""
    if "tc" not in variants:
        return ()
    few = r.loops[0] <= 64 and math.prod(r.loops) * r.n < _MANY_RESULTS
    sizes = itertools.product(
        (4, 2, 1) if few else (1,),
        [tiles for tiles in (4, 2, 1) if tiles * tensor_core.depth(device) <= r.loops[0]],
        (1,) if few else (4, 2, 1),
        (4, 2, 1),
    )
    found = []
    for more, tokens, rows, warps in sizes:
        if tensor_core.instructions(r.formats[0], device) * more * tokens * rows > _BODY:
            continue
        tile = (("UPCAST", tokens, "0"), ("UPCAST", rows, "1"), ("LOCAL", warps, "1"))
        opts = tuple(Opt(op, None, size, loop) for op, size, loop in tile if size > 1)
        found.append(Schedule("tc", (), (*tensor_core.opts(r.formats[0], device, more), *opts)))
    return tuple(found)
