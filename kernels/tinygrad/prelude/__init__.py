"""Functions in C for kernels over int8, which a host's C compiler builds. Written for clang 13 and later.

A vector has 16 lanes, which are rows of a tile. Instructions: AVX512-VNNI, AVX-VNNI, AVX2, ARM's dot product, and plain
C. A kernel calls the functions through Ops.CUSTOM, as statements of their own, and blocks are added one after the
other. So sums are made in the same order whatever else a kernel computes, and no operation in one is joined with one
outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.tinygrad.prelude import activations, dots, formats, quants, types

PRELUDE = types.C + dots.C + formats.C + quants.C + activations.C


def row_sums(format: str, tokens: int, blocks: int, items: Sequence[int], x_row: int, x_block: int) -> str:
    """The C expression of the sums of 16 rows, for each of `tokens` tokens: a vector of 16 * tokens lanes. `{0}` and so
    on are the places of the tiled planes at the first block, `{n}` that of x. items: those of a block, of each plane.
    x_row, x_block: words from one row of x to the next, and from one block of the weight to the next."""
    steps = [*(16 * count for count in items), x_block]
    places = ", ".join(f"{{{i}}} + b * {step}" for i, step in enumerate(steps))
    loop = f"for (int b = 0; b < {blocks}; b++)"
    block = f"v_{format.lower()}(s, {tokens}, {x_row}, {places})"
    add = f"V_UNROLL for (int t = 0; t < {tokens}; t++) r[t] += s[t];"
    start = f"v_f16 r[{tokens}] = {{{{0}}}}, s[{tokens}];"
    return f"({{{{ {start} {loop} {{{{ {block}; {add} }}}} *(v_f{16 * tokens} *)r; }}}})"
