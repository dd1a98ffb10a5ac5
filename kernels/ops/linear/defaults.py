"""The hand-chosen schedules of row kernels.

An opt is legal only where its amount divides the loop. So there is a list for each workload, and the first schedule
that applies is used. tinygrad's heuristic, which can be 10 times slower, is used only where none applies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.formats import get_format
from kernels.ops.kit.nearest import nearest
from kernels.ops.kit.slices import slices
from kernels.ops.kit.warp import WARP
from kernels.ops.linear import tensor_core, warp
from kernels.ops.linear.dot import RowDot, chunk_words, is_unquantized
from kernels.ops.op import Params, Variant

Schedules = tuple[Schedule, ...]
Variants = Mapping[str, Variant]


def heuristic_baselines(w: Workload, variants: Variants) -> Schedules:
    """Each variant that is plain loops, with one accumulator, scheduled by tinygrad's heuristic."""
    words = {"dequant": 1, "factored": 8}
    return tuple(
        Schedule(name, nearest(variants[name].params(w), words=words[name], lanes=1), None)
        for name in words
        if name in variants
    )


def default_schedules(w: Workload, r: RowDot, variants: Variants, device: str) -> Schedules:
    """The default schedules on a backend ("CUDA", "CPU:X86"), best first, of the variants that it has parameters for.

    Tensor cores come first, for many tokens. Then the lanes of a warp share a row where shuffles are known, else the
    threads of a workgroup do. (On an Apple GPU, GROUPTOP and GROUP reached 70 GB/s, a kernel without opts 9 GB/s and a
    hand-written kernel with simdgroups 145 GB/s.)
    """
    row = backends.find(device)
    found = _shuffle(w, r, variants, row.fitted) if row.threads else _vectors(w, r, variants, device)
    return (*_tiles(r, variants, device), *found)


def _name(r: RowDot) -> str:
    return "dequant" if all(map(is_unquantized, r.formats)) else "factored"


def _vectors(w: Workload, r: RowDot, variants: Variants, device: str) -> Schedules:
    """For CPUs and other backends without workgroups. For one token 8 accumulators fill an AVX2 register, and 4 rows
    share each load of x. More tokens share the unpacking of a weight. Threads share out what is left of the rows."""
    tokens = r.loops[0]
    name = _name(r) if tokens == 1 else "dequant"
    words, lanes = {1: (4, 8), 2: (4, 4), 4: (4, 4)}.get(tokens, (1, 1))
    params = nearest(variants[name].params(w), lanes=lanes, words=words)
    upcast = () if tokens == 1 else (Opt("UPCAST", None, min(tokens, 8), "0"),)
    found = []
    for rows in (4, 3, 2):
        opts = Opt("UPCAST", None, rows, "1"), *upcast
        if (amount := slices(r.n // rows, _products(r), device)) > 1:
            found.append(Schedule(name, params, (*opts, Opt("THREAD", None, amount, "1"))))
        found.append(Schedule(name, params, opts))
    return tuple(dict.fromkeys([*found, Schedule(name, params, upcast), Schedule(name, params, ())]))


def _shuffle(w: Workload, r: RowDot, variants: Variants, fitted: bool) -> Schedules:
    """Warps that compute a few rows each, which keep the memory of a GPU busy. Apple's GPUs hold fewer threads and have
    two simdgroups a threadgroup, as llama.cpp's kernels do."""
    if (found := variants.get("warp")) is None:
        return _groups(w, r, variants)
    wanted = _warps_as_measured(r, max(p["staged"] for p in found.params(w))) if fitted else _few_warps(r)
    choice = Schedule("warp", nearest(found.params(w), **wanted), ())
    few = _few_rows(variants["dequant"].params(w)) if _outputs(r) <= 256 and is_unquantized(r.formats[0]) else ()
    return (*few, choice, *_groups(w, r, variants))


def _warps_as_measured(r: RowDot, staged: int) -> dict[str, int]:
    """The parameters of `warp` that were fastest on an H100. staged: 1 where x fits in local memory, else 0."""
    wide = min(_wide_words(format, r.k, _pair(r)) for format in r.formats)
    if staged:
        return {"rows": _shared_x_rows(r), "warps": 4, "words": wide, "staged": 1}
    if r.loops[0] == 1:
        return {"rows": 2, "warps": 8, "words": min(wide, 4), "staged": 0}
    return {**_few_warps(r), "warps": 4}


def _few_warps(r: RowDot) -> dict[str, int]:
    """The parameters of `warp` for GPUs that hold fewer threads than NVIDIA's, or that nothing was measured on."""
    words = min(_words(format, r.k) for format in r.formats)
    return {"rows": _rows(r, words), "warps": 2, "words": words, "staged": 0}


def _few_rows(params: Sequence[Params]) -> Schedules:
    """For so few rows that one warp a row would leave a GPU idle: many threads share a row."""
    narrow = tuple(sorted(min(params, key=lambda p: p["lanes"]).items()))
    opts = Opt("GROUPTOP", None, 16, "2"), Opt("GROUPTOP", None, 8, "2"), Opt("UNROLL", None, 4, "2")
    return (Schedule("dequant", narrow, opts),)


def _a_word(format: str) -> int:
    """Number of weights that one word of a step holds."""
    return 1 if is_unquantized(format) else 4 * tensor_core.runs(format)


def _words(format: str, k: int) -> int:
    """Words of a step: a lane gets 32 weights, or 16 of a format with blocks of 32, so that the words of neighbouring
    lanes stay close. Fewer where lanes would be left without words."""
    weights = 16 if get_format(format).block == 32 else 32
    return _most_words(format, k, (4, 2), weights)


def _rows(r: RowDot, words: int) -> int:
    """Rows that a warp computes together: they share the work on x, but leave fewer warps. Measured on an H100, where
    this is 1.0 to 1.8 times as fast as one row a warp."""
    if r.n >= 8192:
        return 4
    if _pair(r):
        return 1  # each row is the work of two
    if r.squares is not None and words > 2:
        return 4  # there is more work on x
    return 2 if _light(r) and r.n >= 2048 else 1


def _products(r: RowDot) -> int:
    return _outputs(r) * r.k * r.summed * (len(r.weights) if _pair(r) else 1)


def _outputs(r: RowDot) -> int:
    """Number of results of a launch."""
    return r.n * math.prod(r.loops)


def _light(r: RowDot) -> bool:
    """Whether a step of a row is so little work that a warp should compute a second row."""
    return len(r.formats) > 1 or _a_word(r.formats[0]) < 16


def _pair(r: RowDot) -> bool:
    """Whether each row is multiplied with several weights, as in gate_up."""
    return len(r.weights) > 1 and all(weight.stop is None for weight in r.weights)


def _shared_x_rows(r: RowDot) -> int:
    """Rows that a warp computes together when x is in local memory. They share the work on x, but each takes registers,
    and a GPU needs some hundreds of workgroups, best as many as it holds at once."""
    rows = _outputs(r) // r.loops[0]
    if _pair(r):
        return 4 if 8192 <= rows <= 12288 else 2 if rows >= 4096 else 1
    if rows >= 32768:
        return 4
    return 2 if rows >= 2048 and _light(r) else 1


def _wide_words(format: str, k: int, pair: bool) -> int:
    """Words of a step when x is in local memory: a lane gets 64 weights, or 32 of a format with blocks of 32 or where a
    row has two weights. Fewer where lanes would be left without words."""
    weights = 32 if pair or get_format(format).block == 32 else 64
    return _most_words(format, k, (8, 4, 2), weights)


def _most_words(format: str, k: int, sizes: Sequence[int], weights: int) -> int:
    """The first of `sizes` words that holds at most `weights` weights and leaves each lane a step; 1 if none does."""
    fit = (s for s in sizes if chunk_words(format, k) % s == 0 and s * _a_word(format) <= weights)
    return next((s for s in fit if warp.steps(format, k, s) >= WARP), 1)


def _groups(w: Workload, r: RowDot, variants: Variants) -> Schedules:
    """The threads of a workgroup share a row: each takes some blocks, and they add up through local memory. Many tokens
    are parallel enough without that: there a thread takes several tokens, which share the weights that it unpacks."""
    name = _name(r)
    if r.loops[0] > warp.MAX_TOKENS:
        params = nearest(variants["dequant"].params(w), words=1, lanes=1)
        shared = Opt("UPCAST", None, 8, "0"), Opt("LOCAL", None, min(r.loops[0] // 8, 4), "0")
        tiles = [(*shared, Opt("LOCAL", None, size, "1")) for size in (16, 8, 4, 2)]
        return tuple(Schedule("dequant", params, opts) for opts in (*tiles, shared, ()))
    params = nearest(variants[name].params(w), words=4, lanes=1)
    loop = "2"
    groups = [Schedule(name, params, (Opt("GROUPTOP", None, size, loop),)) for size in (32, 16, 8, 4, 2)]
    locals_ = [Schedule(name, params, (Opt("LOCAL", None, size, "1"),)) for size in (32, 8)]
    return (*groups, *locals_, Schedule(name, params, ()))


_MANY_RESULTS = 1 << 20
_BODY = 128  # tensor core instructions in the body of a loop; with 192 ptxas ran out of registers on an H100


def _tiles(r: RowDot, variants: Variants, device: str) -> Schedules:
    """Schedules for tensor cores. A warp computes up to 4 x 4 tiles, so that an operand in a register serves several
    instructions. Up to 4 warps of a workgroup take neighbouring rows, and share the cache lines of x.

    Few tokens make few warps, unless they are spread over many experts. Each warp then has one tile of rows and unrolls
    further, to have more loads under way.
    """
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
