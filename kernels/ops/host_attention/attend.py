"""Attention over a cache of keys in tiles, for the threads of a host's processor.

The lanes of a vector register are positions where scores are computed, and columns where values are summed: nothing is
summed across lanes but once for a block of positions. A lane loop is an innermost loop over neighbouring items of
arrays, which a C compiler vectorises.

A slice takes one run of the context, or `tokens` tokens of a prompt, and `heads` query heads that share a kv head. It
goes through the positions in blocks of `block`:
    1  scores: for each tile all columns of the keys are multiplied with those of all queries
    2  the running maximum of each query, and 2^(score - maximum) (Milakov & Gimelshein, "Online normalizer calculation
       for softmax", 2018)
    3  values: in strips of `strip` columns, weighted and summed for all queries
Loops over positions end at the last position that a slice sees.
"""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.backends import MOST_SLICES
from kernels.ops.attention.spec import Flash
from kernels.ops.host_attention.slice import Slice
from kernels.ops.host_attention.spec import RUN, TILE, HostDecode
from kernels.ops.kit.pieces import divisors, ended, pieces
from kernels.ops.kit.workgroup import Workgroup
from kernels.ops.op import Args, Params
from kernels.tinygrad.uops import AxisType

MOST_QUERIES = 12


def attend_params(w: Workload) -> tuple[Params, ...]:
    """The parameters, the most queries first: each vector that is loaded then serves more of them."""
    s = Flash.from_workload(w)
    group = s.heads // s.kv_heads
    found = []
    for tokens in divisors(1 if isinstance(s, HostDecode) else w.m, MOST_QUERIES):
        for heads in divisors(group, MOST_QUERIES // tokens):
            for strip in (d for d in divisors(s.v_head_dim, 64) if d >= 8 or d == min(8, s.v_head_dim)):
                for lanes in (2 * TILE, TILE):
                    found += [
                        {"tokens": tokens, "heads": heads, "strip": strip, "lanes": lanes, "block": block}
                        for block in (RUN, RUN // 2)
                    ]
    return tuple(found)


def attend(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel. Slices are runs times blocks of heads, as far as MOST_SLICES allows."""
    s = Flash.from_workload(w)
    runs = s.splits if isinstance(s, HostDecode) else w.m // params["tokens"]
    blocks = s.heads // params["heads"]
    run_slices = divisors(runs, MOST_SLICES)[0]
    block_slices = divisors(blocks, MOST_SLICES // run_slices)[0]
    slice_ = UOp.range(run_slices * block_slices, 0, AxisType.THREAD)
    outer = slice_ // block_slices
    inner = slice_ - outer * block_slices  # not %, for which tinygrad would split the loop
    if not isinstance(s, HostDecode):
        outer = (run_slices - 1) - outer  # later tokens see more: their slices come first
    run_size, block_size = runs // run_slices, blocks // block_slices
    run, run_loops = pieces(run_size, 1, number=1)
    block, block_loops = pieces(block_size, 1, number=3)
    loops = [slice_, *run_loops, *block_loops]
    work = Slice(w, s, params, args, Workgroup(1, None, *loops))
    return ended(work.done(outer, run_size, outer * run_size + run, inner * block_size + block), loops)
