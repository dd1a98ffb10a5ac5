"""Functions in C for kernels over int8, which a host's C compiler builds. Written for clang 13 and later.

A vector has 16 lanes, which are rows of a tile. Instructions: AVX512-VNNI, AVX-VNNI, AVX2, ARM's dot product, and plain
C. A kernel calls the functions through Ops.CUSTOM, as a statement of its own: so no sum of floats in the functions is
joined with one outside, and results do not depend on what a kernel computes besides.
"""

from __future__ import annotations

from kernels.tinygrad.prelude import activations, dots, formats, quants, types

PRELUDE = types.C + dots.C + formats.C + quants.C + activations.C


def block(format: str, tokens: int, step: int, planes: int) -> str:
    """The C expression of what a block of a format adds to the sums of 16 rows, for each of `tokens` tokens: a vector
    of 16 * tokens lanes. `{0}` and so on are the places of the planes, which are `planes`, then that of x."""
    places = ", ".join(f"{{{i}}}" for i in range(planes + 1))
    call = f"v_{format.lower()}(r, {tokens}, {step}, {places})"
    return f"({{{{ v_f16 r[{tokens}]; {call}; *(v_f{16 * tokens} *)r; }}}})"
