"""Biases that are left out, or of something else."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import BUILD_LINEAR, BUILDER, DECODE, FFN, MODEL, PASSES

MUTANTS = (
    Mutant(
        "the biases of q, k and v are left out",
        MODEL,
        'Projection(weight, self.hp.optional_vector(f"{name}.bias", weight.shape[0]))',
        "Projection(weight)",
        said("qwen2"),
    ),
    Mutant(
        "a prompt's biases of q, k and v are in the reverse order",
        BUILD_LINEAR,
        '*(Read("bias", bias) for bias in found)',
        '*(Read("bias", bias) for bias in reversed(found))',
        said("qwen2"),
    ),
    Mutant(
        "a decode step's biases of q, k and v are in the reverse order",
        DECODE,
        '*(Read("bias", bias) for bias in biases))',
        '*(Read("bias", bias) for bias in reversed(biases)))',
        said("qwen2"),
    ),
    Mutant(
        "a linear's epilogue forgets the bias",
        BUILD_LINEAR,
        '["bias"] if found else []',
        "[]",
        said("llama-ffn-biases"),
    ),
    Mutant(
        "a decode step's epilogue forgets the bias",
        DECODE,
        '"bias" if biases else "none"',
        '"none"',
        said("qwen2"),
    ),
    Mutant(
        "the bias of ffn_gate is left out",
        BUILDER,
        "[gate.weight], [gate.bias]",
        "[gate.weight], [None]",
        said("llama-ffn-biases"),
    ),
    Mutant(
        "the bias of ffn_up is left out",
        BUILDER,
        "[up.weight], [up.bias]",
        "[up.weight], [None]",
        said("llama-ffn-biases"),
    ),
    Mutant(
        "the biases of ffn_down and attn_output are left out",
        MODEL,
        'projection = self.projection(f"{block}{name}", n=self.dim, k=width(made))',
        'projection = Projection(self.projection(f"{block}{name}", n=self.dim, k=width(made)).weight)',
        said("llama-ffn-biases"),
    ),
    Mutant(
        "the bias of the logits is left out",
        PASSES,
        'hp.optional_vector("output.bias", table.shape[0])',
        "None",
        told("qwen2"),
    ),
    Mutant(
        "the router's bias is left out",
        FFN,
        'builder.linear(normed, router, "router_logits")',
        'builder.linear(normed, Projection(router.weight), "router_logits")',
        said("gpt-oss"),
    ),
    Mutant(
        "the biases of experts are left out",
        FFN,
        "Projection(weight, None if bias is None else hp.matrix(bias.name, n=experts, k=rows))",
        "Projection(weight)",
        said("gpt-oss"),
    ),
    Mutant(
        "a prompt's experts take each other's biases of gate and up",
        BUILDER,
        "self._product(e, (e.up, *halves[1])",
        "self._product(e, (Projection(e.up.weight, e.gate.bias), *halves[1])",
        said("gpt-oss"),
    ),
)
