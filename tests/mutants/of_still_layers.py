"""Faults in layers that do not turn, in windows known by the number of layers, and in norms after a block only."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import ANGLES, ARCHITECTURES, ATTENTION, BUILD_LINEAR, FFN, VARIANTS

STEP = "(layer + 1) % arch.still_period == 0"
GLOBAL = "arch.still_global and arch.window_period and not a.window"

MUTANTS = (
    Mutant("smollm3's layers all turn", ARCHITECTURES, "INTERLEAVED, still_period=4", "INTERLEAVED", told("smollm3")),
    Mutant(
        "the first layer of four does not turn, not the last",
        ATTENTION,
        STEP,
        "layer % arch.still_period == 0",
        said("smollm3"),
    ),
    Mutant(
        "every fifth layer does not turn",
        ATTENTION,
        STEP,
        "(layer + 1) % (arch.still_period + 1) == 0",
        said("smollm3"),
    ),
    Mutant(
        "smollm3's items turn in halves, not side by side",
        ARCHITECTURES,
        "Architecture(INTERLEAVED, still_period=4)",
        "Architecture(still_period=4)",
        said("smollm3"),
    ),
    Mutant("exaone4's layers without a window turn, too", ATTENTION, GLOBAL, "False", said("exaone4-windows")),
    Mutant(
        "exaone4's layers with a window do not turn",
        ATTENTION,
        f"{GLOBAL}:",
        "arch.still_global and a.window:",
        said("exaone4-windows"),
    ),
    Mutant(
        "a model of exaone4 without windows does not turn",
        ATTENTION,
        GLOBAL,
        "arch.still_global and not a.window",
        said("exaone4"),
    ),
    Mutant(
        "exaone4 has windows whatever its layers",
        VARIANTS,
        "known, window = layers == arch.window_layers,",
        "known, window = True,",
        ("tests/kernels/test_architectures.py::test_which_layers_see_a_window",),
    ),
    Mutant(
        "exaone4's pattern of windows is one layer longer",
        ARCHITECTURES,
        "still_global=True, window_period=4",
        "still_global=True, window_period=5",
        said("exaone4-windows"),
    ),
    Mutant(
        "olmo2's pattern of windows is one layer shorter",
        ARCHITECTURES,
        "_AFTER_ONLY, window_period=4, local",
        "_AFTER_ONLY, window_period=3, local",
        said("olmo2-windows"),
    ),
    Mutant(
        "olmo2's layers with a window are scaled",
        ARCHITECTURES,
        ", local_scaling=False, local_factor=False",
        "",
        said("olmo2-windows"),
    ),
    Mutant(
        "olmo2's layers with a window have attn_factor",
        ANGLES,
        "of_local = of_local if arch.local_factor else replace(of_local, size=1.0)",
        "of_local = of_local",
        said("olmo2-windows"),
    ),
    Mutant(
        "olmo2's layers with a window turn by the default base",
        VARIANTS,
        "local = rope_base(hp)\n",
        "local = 10000.0\n",
        told("olmo2"),
    ),
    Mutant(
        "a block's norms come before the residual is read",
        ATTENTION,
        'found = builder.linears(x, projections, "qkv")',
        'found = builder.rmsnorm_linear(x, hp.need(f"{block}post_attention_norm.weight"), projections, "qkv")',
        said("olmo2", "exaone4"),
    ),
    Mutant(
        "the norm after the FFN comes before it",
        FFN,
        "if name else None",
        'if name else model.hp.vector(f"{block}post_ffw_norm.weight", model.dim)',
        said("olmo2", "exaone4"),
    ),
    Mutant(
        "q, k and v without a norm before them lose their biases",
        BUILD_LINEAR,
        "group, [p.bias for p in of_group], label",
        "group, [], label",
        told("olmo2"),
    ),
)
