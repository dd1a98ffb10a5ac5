"""Faults in multi-head latent attention."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import ATTENTION, BUILD_ATTENTION, BUILD_LINEAR, PARTS

MUTANTS = (
    Mutant(
        "latent attention's scale is of the compressed row",
        ATTENTION,
        "scores * key**-0.5",
        "scores * (rank + rope) ** -0.5",
        said("deepseek2"),
    ),
    Mutant(
        "heads of latent attention are as wide as their plain half",
        PARTS,
        "        return self.nope + self.rope\n",
        "        return self.nope\n",
        said("deepseek2"),
    ),
    Mutant(
        "the compressed kv is read from the start of the row, where q is",
        BUILD_ATTENTION,
        "kv_start=kv_start,",
        "kv_start=0,",
        said("deepseek2"),
    ),
    Mutant(
        "plain halves of q follow each other without the rotated ones",
        BUILD_LINEAR,
        "heads, step, row)",
        "heads, k, row)",
        said("deepseek2"),
    ),
    Mutant(
        "latent attention's eps is 1e-6",
        BUILD_ATTENTION,
        "            max_ctx=self.context,\n            eps=self.eps,",
        "            max_ctx=self.context,\n            eps=1e-6,",
        told("deepseek2"),
    ),
    Mutant(
        "a compressed q is normalised with the norm of the layer",
        ATTENTION,
        'norm = hp.vector(f"{block}attn_q_a_norm.weight", width)',
        'norm = hp.vector(f"{block}attn_norm.weight", model.dim)',
        said("deepseek2"),
    ),
)
