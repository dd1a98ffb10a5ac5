"""Small models of every architecture that llama.cpp knows as we do, and of what a file of one may have or lack.

Heads are 32 wide, so that all of q is as wide as the model: the loaders of some architectures ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from support.small_models import VOCABULARY, Small
from support.synthetic_models import (
    DIM,
    EXPERT_FFN,
    EXPERTS,
    FFN,
    HEADS,
    MODELS,
    NOPE,
    Q_RANK,
    RANK,
    ROPE,
    SHARED,
    VALUE,
    Shape,
)  # fmt: skip

HEAD, KV = 32, 64
_SHAPES: Mapping[str, Shape] = {
    "attn_q": (DIM, DIM), "attn_k": (KV, DIM), "attn_v": (KV, DIM), "attn_output": (DIM, DIM),
    "attn_q.bias": (DIM,), "attn_k.bias": (KV,), "attn_v.bias": (KV,),
    "attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,), "attn_qkv": (DIM + 2 * KV, DIM),
}  # fmt: skip
_SIZES = {"attention.key_length": HEAD, "attention.value_length": HEAD, "expert_feed_forward_length": EXPERT_FFN}
_MIXTURE = {"feed_forward_length": EXPERT_FFN}  # of an architecture without a key for the experts' own

_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 32,
    "context_length": 128,
}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
_LONG = {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.19}
_FACTORS: Mapping[str, Shape] = {f"rope_factors_{which}.weight": (HEAD // 2,) for which in ("long", "short")}
_TURNS = {"rope.dimension_count": HEAD}
_SECTIONS = {"rope.dimension_sections": (2, 1, 1, 0)}
_LOCAL = {"rope.freq_base_swa": 300.0}
_STILL = {"rope.scaling.finetuned": False}
_FFN_BIASES: Mapping[str, Shape] = {
    "attn_output.bias": (DIM,), "ffn_gate.bias": (FFN,), "ffn_up.bias": (FFN,), "ffn_down.bias": (DIM,),
}  # fmt: skip
_ROW_NORMS: Mapping[str, Shape] = {"attn_q_norm": (DIM,), "attn_k_norm": (KV,)}
_GRANITE = {"embedding_scale": 3.0, "residual_scale": 0.6, "attention.scale": 0.3, "logit_scale": 2.5}

_QUERY: Mapping[str, Shape] = {
    "attn_q_a": (Q_RANK, DIM),
    "attn_q_a_norm": (Q_RANK,),
    "attn_q_b": (HEADS * (NOPE + ROPE), Q_RANK),
}
_LATENT = {"expert_feed_forward_length": EXPERT_FFN, "expert_shared_count": 2, "expert_weights_scale": 1.5}
_COMPRESSED = _LATENT | {"attention.q_lora_rank": Q_RANK}
_WHOLE = {
    "attention.key_length": NOPE + ROPE,
    "attention.value_length": VALUE,
    "attention.key_length_mla": None,
    "attention.value_length_mla": None,
    "attention.head_count_kv": HEADS,
}
_SIGMOID = {"expert_gating_func": 2, "expert_weights_norm": True}
_GROUPS = _SIGMOID | {"expert_group_count": 4, "expert_group_used_count": 2}


def _case(
    architecture: str,
    keys: Mapping[str, object] | None = None,
    *,
    like: str = "",
    without: tuple[str, ...] = (),
    extra: Mapping[str, Shape] | None = None,
    dense: int = 0,
    more: Mapping[str, Shape] | None = None,
    tied: bool = False,
    formats: Mapping[str, str] | None = None,
    mixed: bool = False,
) -> Small:
    """like: another architecture whose block it has. extra, without: tensors of a block to add and to leave out."""
    block = {name: shape for name, shape in MODELS[like or architecture][0].items() if name not in without}
    latent = "attn_kv_a_mqa" in block
    shapes = block if latent else {name: _SHAPES.get(name, shape) for name, shape in block.items()}
    sizes = _LATENT if latent else {**_SIZES, **(MODELS[like][1] if like else {})}
    keys = {**sizes, **(keys or {})}
    return Small(architecture, {**shapes, **(extra or {})}, keys, dense, more or {}, tied, formats or {}, mixed)


def _latent(keys: Mapping[str, object], without: tuple[str, ...] = (), **extra: Shape) -> Small:
    return _case("deepseek2", _COMPRESSED | keys, without=("attn_q", *without), extra=_QUERY | extra, dense=1)


CASES = {
    "llama": _case("llama", mixed=True),
    "llama-tied": _case("llama", _TURNS, tied=True, more={"rope_freqs.weight": (HEAD // 2,)}),
    "llama-linear": _case("llama", _LINEAR),
    "llama-yarn": _case("llama", _YARN),
    "llama-biases": _case("llama", like="qwen2"),
    "llama-experts": _case("llama", _MIXTURE, like="qwen3moe", without=("attn_q_norm", "attn_k_norm")),
    "llama-ffn-biases": _case("llama", extra=_FFN_BIASES),
    "llama-long": _case("llama", _YARN | _LONG | {"rope.scaling.type": "longrope"}, more=_FACTORS),
    "mistral3": _case(
        "mistral3",
        _YARN
        | {"rope.scaling.original_context_length": 64, "attention.temperature_scale": 0.1}
        | {f"rope.scaling.yarn_{k}": v for k, v in {"log_multiplier": 1.0, "beta_fast": 4.0, "beta_slow": 0.5}.items()},
    ),
    "qwen2": _case("qwen2"),
    "qwen3": _case("qwen3"),
    "qwen2moe": _case("qwen2moe"),
    "qwen3moe": _case("qwen3moe", mixed=True),
    "deepseek2": _latent({}),
    "deepseek2-lite": _case("deepseek2", {"block_count": 27}, dense=26),  # llama.cpp knows it by its layers
    "deepseek2-whole": _latent(_WHOLE, ("attn_k_b", "attn_v_b"), attn_kv_b=(HEADS * (NOPE + VALUE), RANK)),
    "deepseek2-fused": _latent({}, ("ffn_gate_exps", "ffn_up_exps"), ffn_gate_up_exps=(EXPERTS, 2 * EXPERT_FFN, DIM)),
    "deepseek2-yarn": _latent(_YARN | {"rope.scaling.yarn_log_multiplier": 0.0707}),
    "deepseek2-yarn-only": _latent(_YARN),
    "deepseek2-groups": _latent(_GROUPS, **{"exp_probs_b.bias": (EXPERTS,)}),
    "glm4": _case("glm4", {"rope.dimension_count": HEAD // 2}),
    "deepseek2-linear": _latent(_LINEAR | {"rope.scaling.attn_factor": 1.1, "rope.scaling.yarn_log_multiplier": 0.05}),
    "glm4-sections": _case("glm4", _SECTIONS | {"rope.dimension_count": HEAD // 2}),
    "glm4moe-sections": _case("glm4moe", _SIGMOID | _SECTIONS | {"rope.dimension_count": HEAD // 2}, dense=1),
    "glm4moe": _case("glm4moe", _SIGMOID | {"rope.dimension_count": HEAD // 2}, dense=1),
    "gemma2": _case("gemma2", {"attention.sliding_window": 16}, tied=True),
    "gemma3": _case("gemma3", _LINEAR | {"attention.sliding_window": 16}, tied=True),
    "gemma2-local": _case("gemma2", _LINEAR | _LOCAL | {"attention.sliding_window": 16}, tied=True),
    "gemma3-local": _case("gemma3", _YARN | _LOCAL | {
        "attention.sliding_window": 16, "block_count": 2, "attention.sliding_window_pattern": (True, False),
        "rope.scaling.attn_factor": 1.2, "final_logit_softcapping": 9.0,
    }, tied=True),
    "phi3": _case("phi3", _TURNS),
    "phi3-long": _case("phi3", _TURNS | _LONG, more=_FACTORS),
    "phi3-short": _case("phi3", _TURNS, more=_FACTORS),
    "olmoe": _case("olmoe", _MIXTURE | {"attention.head_count_kv": HEADS}, extra={
        "attn_q_norm": (DIM,), "attn_k_norm": (DIM,), "attn_k": (DIM, DIM), "attn_v": (DIM, DIM),
    }),
    "smollm3": _case("smollm3", _YARN | {"block_count": 5, "rope.scaling.attn_factor": 1.2}),
    "olmo2": _case("olmo2", extra=_ROW_NORMS),
    "olmo2-windows": _case("olmo2", _YARN | {
        "block_count": 5, "attention.sliding_window": 16, "rope.scaling.attn_factor": 1.2,
    }, extra=_ROW_NORMS),
    "exaone4": _case("exaone4", tied=True, more={"rope_freqs.weight": (HEAD // 2,)}),
    "exaone4-windows": _case("exaone4", {  # llama.cpp knows it by its layers
        "block_count": 64, "attention.sliding_window": 4, "feed_forward_length": 64, "rope.freq_base": 300.0,
    }, extra={"ffn_gate": (64, DIM), "ffn_up": (64, DIM), "ffn_down": (DIM, 64)}),
    "gpt-oss": _case("gpt-oss", _YARN | {"attention.sliding_window": 16}, formats={"_exps": "MXFP4"}),
    "gpt-oss-local": _case("gpt-oss", _YARN | _LOCAL | {"attention.sliding_window": 16}, formats={"_exps": "MXFP4"}),
    "granite": _case("granite", _GRANITE),
    "granite-still": _case("granite", _GRANITE | _STILL | {"rope.scaling.attn_factor": 1.5}),
    "granitemoe": _case("granitemoe", _MIXTURE | _GRANITE | {"expert_shared_feed_forward_length": 256}),
    "granitemoe-turns": _case("granitemoe", _MIXTURE | _GRANITE | _STILL, without=tuple(SHARED)),
}  # fmt: skip

_WIDER: Mapping[str, Shape] = {
    "attn_q": (2 * DIM, DIM), "attn_k": (2 * KV, DIM), "attn_v": (2 * KV, DIM), "attn_output": (DIM, 2 * DIM),
}  # fmt: skip
_WIDE = {"attention.key_length": 2 * HEAD, "attention.value_length": 2 * HEAD}
_EPS = {"attention.layer_norm_rms_epsilon": 0.05}

# keys with values that no default equals, each large enough to be seen within the first 40 positions
TELLING = {
    "llama": _case("llama", _EPS | _WIDE | {"rope.freq_base": 300.0, "rope.scale_linear": 2.5}, extra=_WIDER),
    "mistral3": _case("mistral3", _EPS | {
        "rope.freq_base": 600.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 512, "rope.scaling.yarn_log_multiplier": 0.4,
        "rope.scaling.yarn_beta_fast": 9.0, "rope.scaling.yarn_beta_slow": 3.0,
    }),
    "qwen2": _case("qwen2", _EPS, more={"output.bias": (VOCABULARY,)}),
    "qwen3": _case("qwen3", _EPS | _WIDE | {"rope.freq_base": 500.0},
                   extra=_WIDER | {"attn_q_norm": (2 * HEAD,), "attn_k_norm": (2 * HEAD,)}),
    "deepseek2": _latent(_EPS | _SIGMOID | {
        "rope.freq_base": 700.0, "expert_weights_norm": False, "expert_used_count": 3,
        "expert_group_count": 2, "expert_group_used_count": 1,
    }, **{"exp_probs_b.bias": (EXPERTS,)}),
    "glm4": _case("glm4", _EPS | {"rope.dimension_count": HEAD // 4, "rope.freq_base": 200.0}),
    "glm4moe": _case("glm4moe", _EPS | {"rope.dimension_count": HEAD // 2, "rope.freq_base": 200.0}, dense=1),
    "granite": _case("granite", _EPS | _GRANITE),
    "gemma2": _case("gemma2", _EPS | _WIDE | {
        "rope.freq_base": 400.0, "attention.sliding_window": 4,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0,
    }, tied=True, extra=_WIDER),
    "gemma2-27b": _case(  # llama.cpp knows it by its layers
        "gemma2", _WIDE | {"attention.sliding_window": 4, "block_count": 46}, tied=True, extra=_WIDER,
    ),
    "gemma3": _case("gemma3", _EPS | {
        "rope.freq_base": 500.0, "attention.sliding_window": 4, "attention.sliding_window_pattern": 3,
        "block_count": 4,
    }, tied=True),
    "phi3": _case("phi3", _TURNS | {"rope.scaling.original_context_length": 512, "rope.freq_base": 300.0},
                  more=_FACTORS),
    "smollm3": _case("smollm3", _EPS | _WIDE | {"rope.freq_base": 300.0, "block_count": 4}, extra=_WIDER),
    "olmo2": _case("olmo2", _EPS | {
        "rope.freq_base": 300.0, "block_count": 3, "attention.sliding_window": 4,
        "attention.sliding_window_pattern": (False, True, True),
    }, extra=_ROW_NORMS | {"attn_q.bias": (DIM,), "attn_k.bias": (KV,), "attn_v.bias": (KV,)}),
    "exaone4": _case("exaone4", _EPS | {"rope.freq_base": 300.0}),
    "gpt-oss": _case("gpt-oss", _EPS | _YARN | {
        "rope.freq_base": 2000.0, "attention.sliding_window": 4, "expert_used_count": 3,
    }, formats={"_exps": "MXFP4"}),
}  # fmt: skip
