"""Faults in mixtures of experts: their router, their shared expert, their sum."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import ARCHITECTURES, BUILD_EXPERTS, BUILDER, FFN

MUTANTS = (
    Mutant(
        "the shared expert is left out",
        FFN,
        'if model.hp.tensor(f"{block}ffn_down_shexp.weight") is None:',
        "if True:",
        said("qwen2moe", "glm4moe"),
    ),
    Mutant("the shared expert's gate is left out", FFN, "    if gate is None:\n", "    if True:\n", said("qwen2moe")),
    Mutant(
        "the shared expert's gate is always open",
        FFN,
        'TopK(1, 1, "sigmoid"',
        'TopK(1, 1, "softmax"',
        said("qwen2moe"),
    ),
    Mutant(
        "the experts' weights are not divided by their sum",
        FFN,
        'hp.flag("expert_weights_norm", arch.normalised)',
        "False",
        said("qwen3moe"),
    ),
    Mutant(
        "expert_weights_norm is ignored",
        FFN,
        'hp.flag("expert_weights_norm", arch.normalised)',
        "arch.normalised",
        said("deepseek2-groups"),
    ),
    Mutant(
        "expert_weights_scale is ignored",
        FFN,
        'hp.number("expert_weights_scale", 0.0) or 1.0',
        "1.0",
        said("deepseek2"),
    ),
    Mutant(
        "expert_gating_func is ignored",
        FFN,
        "GATINGS.get(number, arch.gating)",
        "arch.gating",
        said("deepseek2-groups"),
    ),
    Mutant(
        "glm4moe's default gating is softmax",
        ARCHITECTURES,
        'ffn_norm="post_attention_norm", gating="sigmoid")',
        'ffn_norm="post_attention_norm")',
        told("glm4moe"),
    ),
    Mutant(
        "gpt-oss takes softmax of all experts, not of the chosen ones",
        ARCHITECTURES,
        ', gating="softmax_weight"',
        "",
        said("gpt-oss"),
    ),
    Mutant(
        "the bias that experts are chosen by is left out",
        FFN,
        'hp.optional_vector(f"{block}exp_probs_b.bias", experts)',
        "None",
        said("glm4moe", "deepseek2-groups"),
    ),
    Mutant(
        "experts are chosen from all groups", FFN, "scale, max(groups, 1), taken)", "scale)", said("deepseek2-groups")
    ),
    Mutant(
        "experts come from one group only",
        FFN,
        'hp.integer("expert_group_used_count") if groups > 1 else 1',
        "1",
        said("deepseek2-groups"),
    ),
    Mutant(
        "one expert fewer is used than asked for",
        FFN,
        'hp.integer("expert_count", rows), hp.integer("expert_used_count", layer=0)',
        'hp.integer("expert_count", rows), hp.integer("expert_used_count", layer=0) - 1',
        told("gpt-oss"),
    ),
    Mutant(
        "the routed experts' sum loses the residual",
        BUILD_EXPERTS,
        'inputs, epilogue = added({"x": x, "ids": ids, "probs": probs}, add)',
        'inputs, epilogue = added({"x": x, "ids": ids, "probs": probs}, None)',
        said("qwen3moe"),
    ),
    Mutant(
        "a prompt's experts lose the residual",
        BUILDER,
        'inputs, epilogue = added({"x": each, "probs": probs}, add)',
        'inputs, epilogue = added({"x": each, "probs": probs}, None)',
        said("qwen3moe"),
    ),
)
