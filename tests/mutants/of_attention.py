"""Faults in attention: windows, scales, caps, sinks, norms of q and k."""

from __future__ import annotations

from .mutant import Mutant, in_parts, said, told
from .places import ARCHITECTURES, ATTENTION, BUILD_ATTENTION, DECODE, HYPERPARAMETERS

WINDOW_KEY = 'window = hp.integer("attention.sliding_window", model.arch.window, low=0)'

MUTANTS = (
    Mutant("a window is one position too wide", ATTENTION, WINDOW_KEY, f"{WINDOW_KEY} + 1", told("gemma2")),
    Mutant("a window is one position too narrow", ATTENTION, WINDOW_KEY, f"{WINDOW_KEY} - 1", told("gpt-oss")),
    Mutant("no layer has a window", ATTENTION, "    if not period:\n", "    if True:\n", said("gpt-oss")),
    Mutant(
        "every layer has a window",
        ATTENTION,
        "layer % period < period - 1",
        "layer % period < period",
        told("gemma3"),
    ),
    Mutant(
        "the first layer of a period sees all, not the last",
        ATTENTION,
        "layer % period < period - 1",
        "layer % period > 0",
        told("gemma2"),
    ),
    Mutant(
        "the key of the period is ignored",
        ATTENTION,
        "period = hp.integer(key, period, low=0)",
        "period = period",
        told("gemma3"),
    ),
    Mutant(
        "the flags of layers with a window are inverted",
        ATTENTION,
        "return window if hp.flag(key, True, layer=layer) else 0",
        "return 0 if hp.flag(key, True, layer=layer) else window",
        said("gemma3-local"),
    ),
    Mutant(
        "the flag of the first layer counts for all",
        HYPERPARAMETERS,
        "return value[layer]",
        "return value[0]",
        said("gemma3-local"),
    ),
    Mutant(
        "the attention launch is told of no window",
        ATTENTION,
        "window=window_of(model, layer)",
        "window=0",
        told("gemma2"),
    ),
    Mutant(
        "attention.scale is ignored",
        ATTENTION,
        'hp.number("attention.scale", 0.0) or (width if wide else head_dim) ** -0.5',
        "(width if wide else head_dim) ** -0.5",
        said("granite"),
    ),
    Mutant(
        "the scale of q.k is of the residual's width by heads",
        ATTENTION,
        "(width if wide else head_dim) ** -0.5",
        "width ** -0.5",
        told("llama"),
    ),
    Mutant(
        "gemma2's 46 layers scale q.k by a head's width",
        ATTENTION,
        'wide = arch.wide_scale_layers == hp.integer("block_count")',
        "wide = False",
        told("gemma2-27b"),
    ),
    Mutant(
        "attention.key_length is ignored",
        ATTENTION,
        'head_dim = hp.integer("attention.key_length", width or None)',
        "head_dim = width",
        told("qwen3"),
    ),
    Mutant(
        "attn_logit_softcapping is ignored",
        ATTENTION,
        'hp.number("attn_logit_softcapping", arch.softcap)',
        "arch.softcap",
        told("gemma2"),
    ),
    Mutant("gemma2's default cap of q.k is none", ARCHITECTURES, " softcap=50.0,", "", said("gemma2")),
    Mutant(
        "sinks are not found",
        ATTENTION,
        'hp.optional_vector(f"blk.{layer}.attn_sinks.weight", heads)',
        "None",
        said("gpt-oss"),
    ),
    Mutant(
        "a decode step has no sinks",
        DECODE,
        "reads=whole(sinks=sinks), products",
        "reads=(), products",
        said("gpt-oss"),
    ),
    Mutant("a prompt has no sinks", BUILD_ATTENTION, "reads=whole(sinks=sinks)", "reads=()", said("gpt-oss")),
    Mutant(
        "norms of q and k are swapped",
        BUILD_ATTENTION,
        "q_norm=norms[0], k_norm=norms[1]",
        "q_norm=norms[1], k_norm=norms[0]",
        said("qwen3"),
    ),
    Mutant(
        "q and k are not normalised",
        BUILD_ATTENTION,
        "eps=None if norms is None else self.eps,",
        "eps=None,",
        said("qwen3"),
    ),
    Mutant(
        "heads are normalised with an eps of 1e-6",
        BUILD_ATTENTION,
        "eps=None if norms is None else self.eps,",
        "eps=None if norms is None else 1e-6,",
        told("qwen3"),
    ),
    Mutant(
        "norms over all heads of q and k are left out",
        ATTENTION,
        '[builder.rmsnorm(s, norms[n], f"{n}_normed") for n, s in zip(("q", "k"), qkv, strict=False)]',
        "qkv[:2]",
        said("olmoe"),
    ),
    Mutant(
        "a context in parts is attended with other heads",
        DECODE,
        "combine(spec.heads, spec.v_head_dim, count)",
        "combine(spec.heads, spec.v_head_dim * 2, count // 2)",
        in_parts("deepseek2"),
    ),
)
