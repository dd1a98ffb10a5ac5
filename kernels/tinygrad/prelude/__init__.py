"""Functions in C for kernels over int8, which a host's C compiler builds. Written for clang 13 and later.

A vector has 16 lanes, which are rows of a tile. Instructions: AVX512-VNNI, AVX-VNNI, AVX2, ARM's dot product, and plain
C. A kernel calls the functions through Ops.CUSTOM, as a statement of its own: so no sum of floats in the functions is
joined with one outside, and results do not depend on what a kernel computes besides.
"""

from __future__ import annotations

from kernels.tinygrad.prelude import activations, dots, formats, quants, types

PRELUDE = types.C + dots.C + formats.C + quants.C + activations.C
BLOCKS = {
    name: f"v_{name.lower()}"
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
} | {name: f"v_{name.lower()}" for name in ("IQ4_NL", "IQ4_XS", "MXFP4")}
"""Format -> (the places of its tiled planes at a block, that of x) -> what the block adds to the sums of the rows."""
