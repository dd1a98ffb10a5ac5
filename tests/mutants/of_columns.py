"""Faults in which rows, columns and halves of a weight are whose."""

from __future__ import annotations

from .mutant import Mutant, said
from .places import ATTENTION, BUILD_EXPERTS, BUILD_LINEAR, BUILDER, DECODE, FFN, OPERANDS

MUTANTS = (
    Mutant(
        "k and v of one weight are swapped",
        ATTENTION,
        "found = found[0].value.split(widths)",
        "found = tuple(found[0].value.split(widths)[i] for i in (0, 2, 1))",
        said("phi3"),
    ),
    Mutant(
        "the weights of k and v are swapped",
        ATTENTION,
        'for name in ("q", "k", "v"))',
        'for name in ("q", "v", "k"))',
        said("llama"),
    ),
    Mutant(
        "weights of several formats are ordered by format",
        OPERANDS,
        "itertools.groupby(tensors, lambda tensor: tensor.format)",
        "itertools.groupby(sorted(tensors, key=lambda t: t.format), lambda tensor: tensor.format)",
        said("llama", "qwen3moe"),
    ),
    Mutant(
        "a prompt's columns of q, k and v all begin where q does",
        BUILD_LINEAR,
        "found += out.split(p.n for p in of_group)",
        "found += [out[: p.n] for p in of_group]",
        said("qwen2"),
    ),
    Mutant(
        "a decode step's columns of k and v begin a column early",
        DECODE,
        "return out.split(p.n for p in projections)",
        "found = out.split(p.n for p in projections)\n"
        "        return (found[0], *(out[c.start - 1 : c.stop - 1] for c in found[1:]))",
        said("qwen2"),
    ),
    Mutant("gate and up are swapped", FFN, 'for half in ("gate", "up")]', 'for half in ("up", "gate")]', said("llama")),
    Mutant(
        "the halves of one weight of gate and up are swapped",
        BUILDER,
        'halves = ("w+", "+w") if weights.fused',
        'halves = ("+w", "w+") if weights.fused',
        said("phi3"),
    ),
    Mutant(
        "a decode step's halves of gate and up are swapped",
        DECODE,
        'Read("gate+up", gate.weight)',
        'Read("up+gate", gate.weight)',
        said("phi3"),
    ),
    Mutant(
        "gate and up of experts are swapped",
        FFN,
        'stacked("ffn_gate_exps", n, dim), stacked("ffn_up_exps", n, dim)',
        'stacked("ffn_up_exps", n, dim), stacked("ffn_gate_exps", n, dim)',
        said("qwen3moe"),
    ),
    Mutant(
        "a prompt's halves of one weight of experts are swapped",
        BUILDER,
        '(("w+", "bias+"), ("+w", "+bias"))',
        '(("+w", "bias+"), ("w+", "+bias"))',
        said("deepseek2-fused"),
    ),
    Mutant(
        "a decode step's halves of one weight of experts are swapped",
        BUILD_EXPERTS,
        '(e.gate, "gate+up", ',
        '(e.gate, "up+gate", ',
        said("deepseek2-fused"),
    ),
)
