"""Faults in norms, and in what embeddings, residual and logits are multiplied and bounded by."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import ARCHITECTURES, BUILD_ACTIVATIONS, BUILDER, DECODE, FFN, MODEL, PASSES

MUTANTS = (
    Mutant("embedding_scale is ignored", MODEL, 'hp.number("embedding_scale", 0.0) or (dim', "(dim", said("granite")),
    Mutant(
        "gemma's embeddings are not scaled", MODEL, "dim**0.5 if arch.sqrt_embedding else 1.0", "1.0", said("gemma2")
    ),
    Mutant(
        "the embedding's factor is not divided by residual_scale",
        MODEL,
        "embedding / residual, factor",
        "embedding, factor",
        said("granite"),
    ),
    Mutant("eps is not divided by the square of residual_scale", MODEL, "/ residual**2", "/ residual", told("granite")),
    Mutant(
        "logit_scale is ignored",
        MODEL,
        'factor = 1 / (hp.number("logit_scale", 0.0) or 1.0)',
        "factor = 1.0",
        said("granite"),
    ),
    Mutant(
        "logit_scale multiplies",
        MODEL,
        'factor = 1 / (hp.number("logit_scale", 0.0) or 1.0)',
        'factor = hp.number("logit_scale", 0.0) or 1.0',
        said("granite"),
    ),
    Mutant(
        "final_logit_softcapping is ignored",
        MODEL,
        'hp.number("final_logit_softcapping", arch.final_softcap)',
        "arch.final_softcap",
        said("gemma3-local"),
    ),
    Mutant("gemma2's default cap of logits is none", ARCHITECTURES, " final_softcap=30.0,", "", said("gemma2")),
    Mutant(
        "there are no post-norms", MODEL, "        if not self.arch.post_norms:\n", "        if True:\n", said("glm4")
    ),
    Mutant(
        "the two post-norms are swapped",
        MODEL,
        '("attn", "ffn").index(which)',
        '("ffn", "attn").index(which)',
        said("glm4"),
    ),
    Mutant(
        "a decode step's FFN is normalised with an eps of 1e-6",
        DECODE,
        "self.eps if norm else None",
        "1e-6 if norm else None",
        told("llama"),
    ),
    Mutant(
        "a norm that is a launch has an eps of 1e-6",
        BUILD_ACTIVATIONS,
        "kind(n, self.eps)",
        "kind(n, 1e-6)",
        told("glm4"),
    ),
    Mutant(
        "the FFN's norm is that of attention",
        FFN,
        'f"{block}{name}.weight", model.dim) if name else None',
        'f"{block}attn_norm.weight", model.dim) if name else None',
        said("llama"),
    ),
    Mutant(
        "gemma's activation is silu",
        BUILDER,
        "gate=gated, act=weights.act",
        'gate=gated, act="silu"',
        said("gemma2"),
    ),
    Mutant("gpt-oss's activation is silu", ARCHITECTURES, 'act="swiglu_oai", ', "", said("gpt-oss")),
    Mutant(
        "an untied model's logits are of its embedding",
        PASSES,
        "weight = table if hp.tensor(OUTPUT) is None else hp.matrix(OUTPUT, n=table.shape[0], k=model.dim)",
        "weight = table",
        said("llama"),
    ),
    Mutant(
        "the last norm is that of the first layer",
        PASSES,
        "hp.vector(OUTPUT_NORM, model.dim)",
        'hp.vector("blk.0.attn_norm.weight", model.dim)',
        said("llama"),
    ),
    Mutant(
        "the last layer is left out",
        PASSES,
        "for layer in range(model.layers)",
        "for layer in range(model.layers - 1)",
        said("llama"),
    ),
    Mutant(
        "the greedy token is the likeliest of an eighth of the vocabulary",
        PASSES,
        'builder.argmax(logits.value, head.n, "next")',
        'builder.argmax(logits.value[: head.n // 8], head.n // 8, "next")',
        said("llama"),
    ),
)
